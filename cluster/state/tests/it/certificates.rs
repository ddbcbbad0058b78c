//! Signed pushes: their certificates are kept with the refs that they changed, up to a bound.

use henge_types::command::VERSION_REPOS;
use henge_types::limits::{PUSH_CERTIFICATES_KEPT_BYTES_MAX, PUSH_CERTIFICATES_KEPT_MAX};
use henge_types::stored::{self, number};
use henge_types::{
    CertifiedRef, Command, LogIndex, NonceSeed, NonceStatus, PreviousValue, PushCertificate,
    PushCertificateRecord, RecordedRef, RefUpdate, Refusal, Reply, ShardCommand, SignatureKind,
    SignedUpdate, UpdateRefs,
};

use crate::fixtures::*;
use crate::golden::{Lines, compare, golden_bytes, state_lines};

const GOLDEN: &str = include_str!("../golden/certificates_3.hex");
const STATE: &str = include_str!("../golden/certificates_state_3.hex");

fn certified(update: &RefUpdate) -> CertifiedRef {
    CertifiedRef {
        name: update.name.clone(),
        old: match update.expected {
            PreviousValue::MustExistAndMatch(old) => Some(old),
            PreviousValue::Any | PreviousValue::MustNotExist | PreviousValue::MustExist => None,
        },
        new: update.new,
    }
}

fn certificate(updates: &[RefUpdate]) -> PushCertificate {
    PushCertificate {
        text: "certificate version 0.1\n".into(),
        pusher: "A <a@example.org> 1767225600 +0000".to_owned(),
        pushee: Some("http://127.0.0.1/a/x.git".to_owned()),
        nonce: NonceStatus::Ok,
        signature: Some(SignatureKind::Ssh),
        refs: updates.iter().map(certified).collect(),
    }
}

fn signed(push: UpdateRefs, certificate: PushCertificate) -> Command {
    let signed = SignedUpdate { push, certificate };
    Command::Shard(ShardCommand::UpdateSignedRefs(signed))
}

/// A push of repository `number` whose every update is signed.
fn all_signed(number: u8, updates: Vec<RefUpdate>) -> Command {
    let certificate = certificate(&updates);
    signed(push(number, updates), certificate)
}

fn seed(byte: u8) -> Command {
    let seed = NonceSeed::from_bytes([byte; 32]);
    Command::Shard(ShardCommand::SetNonceSeed(seed))
}

fn shard() -> Group {
    let mut shard = Group::shard();
    shard.run(Command::VersionBarrier { version: 3 });
    shard.run(create(1));
    shard.run(create(2));
    shard
}

fn kept(shard: &Group, number: u8) -> Vec<PushCertificateRecord> {
    shard.view().push_certificates(&repo_id(number)).collect()
}

#[test]
fn a_signed_push_does_what_an_unsigned_one_does_and_one_record_more() {
    let updates = || {
        vec![
            to_create("refs/heads/main", 1),
            to_create("refs/tags/v1", 1),
        ]
    };
    let (mut one, mut other) = (shard(), shard());
    let plain = one.run(refs(push(1, updates())));
    let mut with = other.run(all_signed(1, updates()));
    let added = with.writes.iter().position(|write| write.key[0] == 0x2c);
    with.writes.remove(added.expect("a record"));
    assert_eq!(with, plain);
    let at = LogIndex::new(other.index);
    let accepted = |update: &RefUpdate| RecordedRef {
        certified: certified(update),
        accepted: true,
    };
    let certificate = certificate(&updates());
    let expected = PushCertificateRecord {
        at,
        at_ms: START_MS,
        account: "admin".to_owned(),
        pusher: certificate.pusher,
        pushee: certificate.pushee,
        nonce: NonceStatus::Ok,
        signature: Some(SignatureKind::Ssh),
        refs: updates().iter().map(accepted).collect(),
        text: certificate.text,
    };
    assert_eq!(kept(&other, 1), [expected]);
    assert_eq!(kept(&other, 2), []);
}

#[test]
fn which_refs_were_accepted_is_recorded_ref_by_ref() {
    let mut shard = shard();
    shard.run(refs(push(1, vec![to_create("refs/heads/main", 1)])));
    // The leader refused one update already: it is in the certificate and not in the push.
    let early = to_create("refs/heads/early", 3);
    let sent = vec![
        to_create("refs/heads/new", 2),
        to_move("refs/heads/main", 9, 2),
    ];
    let all = [sent.clone(), vec![early]].concat();
    shard.run(signed(push(1, sent), certificate(&all)));
    let records = kept(&shard, 1);
    let accepted: Vec<_> = records[0]
        .refs
        .iter()
        .map(|recorded| (recorded.certified.name.as_str(), recorded.accepted))
        .collect();
    let expected = [
        ("refs/heads/new", true),
        ("refs/heads/main", false),
        ("refs/heads/early", false),
    ];
    assert_eq!(accepted, expected);
}

#[test]
fn what_changes_nothing_is_not_recorded() {
    let mut shard = shard();
    shard.run(all_signed(1, vec![to_create("refs/heads/main", 1)]));
    let stale = || vec![to_create("refs/heads/main", 2)];
    shard.run(all_signed(1, stale()));
    let atomic = UpdateRefs {
        atomic: true,
        ..push(1, [stale(), vec![to_create("refs/heads/x", 1)]].concat())
    };
    let certificate = certificate(&atomic.updates);
    shard.run(signed(atomic, certificate));
    shard.run(configure(1, 7, |settings| settings.archived = true));
    shard.run(all_signed(1, vec![to_create("refs/heads/y", 1)]));
    assert_eq!(kept(&shard, 1).len(), 1);
    let gone = Refusal::NoSuchRepo { repo: repo_id(9) };
    let to_nobody = all_signed(9, vec![to_create("refs/heads/y", 1)]);
    shard.nothing_but(to_nobody, Reply::Refused(gone));
}

#[test]
fn a_certificate_beyond_its_bounds_is_refused_with_its_push() {
    let mut shard = shard();
    let updates = vec![to_create("refs/heads/main", 1)];
    let good = certificate(&updates);
    let bad = [
        PushCertificate {
            text: vec![b'x'; 256 * 1024 + 1].into(),
            ..good.clone()
        },
        PushCertificate {
            pusher: "x".repeat(1025),
            ..good.clone()
        },
        PushCertificate {
            pushee: Some("x".repeat(1025)),
            ..good.clone()
        },
        PushCertificate {
            refs: Vec::new(),
            ..good.clone()
        },
        PushCertificate {
            refs: [good.refs.clone(), good.refs.clone()].concat(),
            ..good
        },
    ];
    for certificate in bad {
        let signed = signed(push(1, updates.clone()), certificate);
        shard.nothing_but(signed, Reply::Refused(Refusal::Invalid));
    }
}

/// Signs a push that moves `main` between two values in turn.
fn sign_again(shard: &mut Group, number: u8, text_bytes: usize) {
    let new = u8::try_from(shard.index % 2).expect("0 or 1") + 1;
    let updates = vec![update("refs/heads/main", PreviousValue::Any, Some(new))];
    let certificate = PushCertificate {
        text: vec![b'x'; text_bytes].into(),
        ..certificate(&updates)
    };
    shard.run(signed(push(number, updates), certificate));
}

#[test]
fn the_oldest_go_when_there_are_many() {
    let mut shard = shard();
    sign_again(&mut shard, 2, 10);
    let first = shard.index + 1;
    for _ in 0..PUSH_CERTIFICATES_KEPT_MAX + 3 {
        sign_again(&mut shard, 1, 10);
    }
    let records = kept(&shard, 1);
    assert_eq!(records.len(), PUSH_CERTIFICATES_KEPT_MAX);
    assert_eq!(records[0].at, LogIndex::new(first + 3));
    assert_eq!(records.last().expect("some").at, LogIndex::new(shard.index));
    assert_eq!(kept(&shard, 2).len(), 1, "of another repository");
}

#[test]
fn the_oldest_go_when_they_are_large() {
    let mut shard = shard();
    for _ in 0..20 {
        sign_again(&mut shard, 1, 200 * 1024);
        let all = shard.state.iter().filter(|(key, _)| key[0] == 0x2c);
        let bytes: usize = all.map(|(_, value)| value.len()).sum();
        assert!(bytes <= PUSH_CERTIFICATES_KEPT_BYTES_MAX, "{bytes}");
    }
    assert_eq!(kept(&shard, 1).len(), 5);
    // A small certificate does not restore a removed one.
    sign_again(&mut shard, 1, 10);
    assert_eq!(kept(&shard, 1).len(), 6);
}

#[test]
fn certificates_go_with_their_repository_and_forks_get_none() {
    let mut shard = shard();
    shard.run(all_signed(1, vec![to_create("refs/heads/main", 1)]));
    shard.run(all_signed(2, vec![to_create("refs/heads/main", 1)]));
    shard.run(Command::Shard(ShardCommand::ForkRepo(
        henge_types::ForkRepo {
            repo: repo_id(3),
            network: network(1),
            generation: FIRST,
            parent: repo_id(1),
        },
    )));
    assert_eq!(kept(&shard, 3), []);
    shard.run(drop_repo(1));
    assert_eq!(kept(&shard, 1), []);
    assert_eq!(kept(&shard, 2).len(), 1);
}

#[test]
fn the_first_seed_is_the_seed() {
    let mut shard = shard();
    assert_eq!(shard.view().nonce_seed(), None);
    assert_eq!(shard.reply(seed(1)), Reply::Done);
    shard.nothing_but(seed(2), Reply::Done);
    let seed = shard.view().nonce_seed();
    assert_eq!(seed, Some(NonceSeed::from_bytes([1; 32])));
}

fn commands() -> Vec<Command> {
    let updates = vec![
        to_create("refs/heads/main", 1),
        to_delete("refs/heads/old", 2),
    ];
    let all = certificate(&updates);
    let unsigned = PushCertificate {
        pushee: None,
        nonce: NonceStatus::Slop { seconds: -3 },
        signature: None,
        ..all.clone()
    };
    vec![
        signed(push(1, updates.clone()), all),
        signed(push(1, updates), unsigned),
        seed(7),
    ]
}

fn records() -> Vec<PushCertificateRecord> {
    let kinds = [
        (NonceStatus::Unsolicited, Some(SignatureKind::OpenPgp)),
        (NonceStatus::Bad, Some(SignatureKind::X509)),
        (NonceStatus::Missing, Some(SignatureKind::Ssh)),
        (NonceStatus::Ok, None),
        (NonceStatus::Slop { seconds: 300 }, None),
    ];
    let record = |(nonce, signature)| {
        let updates = [
            to_create("refs/heads/main", 1),
            to_delete("refs/heads/old", 2),
        ];
        let certificate = certificate(&updates);
        let recorded = |certified: CertifiedRef| RecordedRef {
            accepted: certified.new.is_some(),
            certified,
        };
        PushCertificateRecord {
            at: LogIndex::new(300),
            at_ms: START_MS,
            account: "admin".to_owned(),
            pusher: certificate.pusher,
            pushee: certificate.pushee,
            nonce,
            signature,
            refs: certificate.refs.into_iter().map(recorded).collect(),
            text: certificate.text,
        }
    };
    kinds.into_iter().map(record).collect()
}

pub(crate) fn lines() -> Lines {
    let line = |command: &Command| (command.name().to_owned(), command.encode());
    let mut lines: Lines = commands().iter().map(line).collect();
    for record in records() {
        let bytes = stored::encode(number::PUSH_CERTIFICATE, 1, &record);
        lines.push(("push_certificate".to_owned(), bytes));
    }
    let seed = NonceSeed::from_bytes([7; 32]);
    let seed = stored::encode(number::NONCE_SEED, 1, &seed);
    lines.push(("nonce_seed".to_owned(), seed));
    lines
}

#[test]
fn commands_and_records_keep_their_bytes() {
    compare(&lines(), GOLDEN);
    let mut golden = golden_bytes(GOLDEN);
    let mut next = || golden.next().expect("a line");
    for command in commands() {
        assert_eq!(command.level(), VERSION_REPOS, "{command:?}");
        assert_eq!(Command::decode(&next()), Ok(command));
    }
    for record in records() {
        let read = stored::decode_v1(number::PUSH_CERTIFICATE, &next());
        assert_eq!(read, Ok(record));
    }
    let seed = stored::decode_v1(number::NONCE_SEED, &next());
    assert_eq!(seed, Ok(NonceSeed::from_bytes([7; 32])));
    let numbers: Vec<_> = commands().iter().map(Command::number).collect();
    assert_eq!(numbers, [88, 88, 89]);
}

pub(crate) fn shard_group() -> Group {
    let mut shard = shard();
    shard.run(seed(7));
    let updates = vec![
        to_create("refs/heads/main", 1),
        to_create("refs/tags/v1", 2),
    ];
    shard.run(all_signed(1, updates));
    let updates = vec![
        to_move("refs/heads/main", 1, 2),
        to_delete("refs/heads/none", 2),
    ];
    shard.run(all_signed(1, updates));
    shard.run(all_signed(2, vec![to_create("refs/heads/main", 1)]));
    shard.run(drop_repo(2));
    shard
}

#[test]
fn a_fixed_sequence_gives_the_same_state_for_ever() {
    let shard = shard_group();
    compare(&state_lines(&shard), STATE);
    for tag in [0x2c, 0x2d] {
        let mut keys = shard.state.iter().map(|(key, _)| key[0]);
        assert!(keys.any(|found| found == tag), "no pair {tag:#x}");
    }
}
