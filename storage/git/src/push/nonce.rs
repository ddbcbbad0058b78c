//! Nonces for signed pushes: they keep a certificate from being used again elsewhere or much later.
//! `receive.certNonceSeed` of git-config(1).
//!
//! A nonce contains its time, and proves its origin and its repository, so the server keeps no
//! state. Over HTTP the nonce comes back with another request, perhaps to another node.

use std::fmt;

use henge_types::NonceStatus;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Issues the nonces of one repository at one point in time, and verifies returned ones.
#[derive(Clone)]
pub struct Nonces {
    keyed: Hmac<Sha256>,
    repository: Vec<u8>,
    now_s: u64,
    slop_s: u64,
}

/// Shows neither the key nor anything derived from it.
impl fmt::Debug for Nonces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nonces")
            .field("now_s", &self.now_s)
            .field("slop_s", &self.slop_s)
            .finish_non_exhaustive()
    }
}

/// The relation between the request with a certificate and the advertisement with the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Both on one stream: the nonce must be the issued one.
    Here,
    /// An earlier request, perhaps to another server with the same seed: the nonce contains its
    /// time.
    Before,
}

impl Nonces {
    /// Nonces made from a secret, for the repository that these bytes name. `now_s` is in seconds
    /// since the Unix epoch. The nonce of another request is valid for up to `slop_s` seconds
    /// (`receive.certNonceSlop`).
    ///
    /// # Panics
    /// Never: HMAC takes keys of any length.
    pub fn new(seed: &[u8], repository: &[u8], now_s: u64, slop_s: u64) -> Self {
        Self {
            keyed: Hmac::new_from_slice(seed).expect("invariant: HMAC takes keys of any length"),
            repository: repository.to_vec(),
            now_s,
            slop_s,
        }
    }

    /// A nonce of the current time: the time and its HMAC, in git's format.
    pub fn issue(&self) -> String {
        let code = self.code(self.now_s).finalize().into_bytes();
        format!("{}-{}", self.now_s, hex::encode(code))
    }

    fn code(&self, stamp_s: u64) -> Hmac<Sha256> {
        let mut code = self.keyed.clone();
        code.update(&self.repository);
        code.update(format!(":{stamp_s}").as_bytes());
        code
    }

    /// The time at which this server made the nonce, in seconds since the Unix epoch; `None` if it
    /// did not.
    fn made_at_s(&self, nonce: &str) -> Option<u64> {
        let (stamp, code) = nonce.split_once('-')?;
        let is_plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if !stamp.starts_with(|first: char| ('1'..='9').contains(&first))
            || !stamp.bytes().all(|byte| byte.is_ascii_digit())
            || !code.bytes().all(is_plain)
        {
            return None;
        }
        let stamp = stamp.parse().ok()?;
        // In constant time: timing must not reveal how much of a guess is right.
        let code = hex::decode(code).ok()?;
        self.code(stamp).verify_slice(&code).ok().map(|()| stamp)
    }

    fn judge(&self, nonce: &str, asked: Asked) -> NonceStatus {
        let Some(stamp) = self.made_at_s(nonce) else {
            return NonceStatus::Bad;
        };
        let seconds = |stamp| i64::try_from(stamp).unwrap_or(i64::MAX);
        let slop = seconds(self.now_s).saturating_sub(seconds(stamp));
        match asked {
            _ if stamp == self.now_s => NonceStatus::Ok,
            Asked::Here => NonceStatus::Bad,
            Asked::Before if slop.unsigned_abs() <= self.slop_s => NonceStatus::Ok,
            Asked::Before => NonceStatus::Slop { seconds: slop },
        }
    }
}

/// The status of the nonce of a certificate. `nonces` is `None` where the repository uses no
/// nonces.
pub(crate) fn judge(nonces: Option<&Nonces>, nonce: Option<&str>, asked: Asked) -> NonceStatus {
    match (nonce, nonces) {
        (None, _) => NonceStatus::Missing,
        (Some(_), None) => NonceStatus::Unsolicited,
        (Some(nonce), Some(nonces)) => nonces.judge(nonce, asked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    fn nonces(repository: &str, now_s: u64, slop_s: u64) -> Nonces {
        Nonces::new(b"seed", repository.as_bytes(), now_s, slop_s)
    }

    fn status(nonce: &str, at_s: u64, slop_s: u64, asked: Asked) -> NonceStatus {
        judge(Some(&nonces("r", at_s, slop_s)), Some(nonce), asked)
    }

    /// By `printf 'r:1700000000' | openssl dgst -sha256 -hmac seed`.
    #[test]
    fn a_nonce_is_the_time_and_its_code() {
        assert_eq!(
            nonces("r", NOW_S, 0).issue(),
            "1700000000-3b77808c220164842fc68ed9ed02e30a4e8d8320741dc5f5e05968219ee49c1a"
        );
    }

    #[test]
    fn a_nonce_is_as_good_as_it_is_young() {
        let nonce = nonces("r", NOW_S, 0).issue();
        for (at_s, slop_s, asked, expected) in [
            (NOW_S, 0, Asked::Here, NonceStatus::Ok),
            (NOW_S, 0, Asked::Before, NonceStatus::Ok),
            (NOW_S + 1, 60, Asked::Here, NonceStatus::Bad),
            (
                NOW_S + 1,
                0,
                Asked::Before,
                NonceStatus::Slop { seconds: 1 },
            ),
            (NOW_S + 60, 60, Asked::Before, NonceStatus::Ok),
            (
                NOW_S + 61,
                60,
                Asked::Before,
                NonceStatus::Slop { seconds: 61 },
            ),
            (NOW_S - 60, 60, Asked::Before, NonceStatus::Ok),
            (
                NOW_S - 61,
                60,
                Asked::Before,
                NonceStatus::Slop { seconds: -61 },
            ),
        ] {
            let found = status(&nonce, at_s, slop_s, asked);
            assert_eq!(found, expected, "{at_s} {slop_s} {asked:?}");
        }
    }

    #[test]
    fn what_was_not_made_for_this_repository_is_bad() {
        let good = nonces("r", NOW_S, 0).issue();
        let (_, code) = good.split_once('-').unwrap();
        let other_seed = Nonces::new(b"other", b"r", NOW_S, 0).issue();
        for nonce in [
            nonces("other", NOW_S, 0).issue(),
            other_seed,
            format!("{}-{code}", NOW_S + 1),
            format!("0{good}"),
            format!("+{good}"),
            format!("{good}00"),
            good[..good.len() - 2].to_owned(),
            good.to_uppercase(),
            format!("99999999999999999999999-{code}"),
            format!("-{code}"),
            String::new(),
            "x".to_owned(),
        ] {
            let found = status(&nonce, NOW_S, 60, Asked::Before);
            assert_eq!(found, NonceStatus::Bad, "{nonce:?}");
        }
    }

    #[test]
    fn without_a_nonce_or_a_seed_there_is_a_word_too() {
        let own = nonces("r", NOW_S, 0);
        let found = judge(Some(&own), None, Asked::Before);
        assert_eq!(found, NonceStatus::Missing);
        assert_eq!(judge(None, None, Asked::Here), NonceStatus::Missing);
        let found = judge(None, Some(&own.issue()), Asked::Here);
        assert_eq!(found, NonceStatus::Unsolicited);
    }

    #[test]
    fn neither_seed_nor_repository_is_shown() {
        let shown = format!("{:?}", nonces("secret path", NOW_S, 3));
        assert_eq!(shown, "Nonces { now_s: 1700000000, slop_s: 3, .. }");
    }
}
