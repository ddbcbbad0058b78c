//! Users: the one administrator, and owners by their names.

use axum::Json;
use henge_auth::Authorized;
use henge_auth::action::ReadAccount;
use henge_types::{OwnerName, Principal};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::error::ApiError;
use crate::origin::Origin;
use crate::routes::{Routes, get};

pub(super) fn routes() -> Routes {
    Routes::new().at("/api/v1/user", get(ReadAccount, current_user))
}

/// Numbers with more bits lose their last digits in clients that store every number as a double.
const NUMBER_BITS: u32 = 53;

/// A number for a thing that our API identifies by bytes: stable, positive, exact as a double. Two
/// things may share one: clients only display it, and no lookup uses it.
pub(crate) fn number(bytes: [u8; 8]) -> u64 {
    (u64::from_be_bytes(bytes) >> (u64::BITS - NUMBER_BITS)).max(1)
}

/// A user in Gitea's shape.
#[derive(Debug, Serialize)]
pub(crate) struct User {
    id: u64,
    login: String,
    username: String,
    full_name: String,
    email: String,
    avatar_url: String,
    html_url: String,
    language: String,
    is_admin: bool,
    active: bool,
    restricted: bool,
    prohibit_login: bool,
    visibility: &'static str,
}

impl User {
    /// The user of this name.
    pub(crate) fn new(name: &OwnerName, origin: &Origin) -> Self {
        let digest: [u8; 32] = Sha256::digest(name.as_str().to_ascii_lowercase()).into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        Self {
            id: number([a, b, c, d, e, f, g, h]),
            login: name.to_string(),
            username: name.to_string(),
            full_name: String::new(),
            email: String::new(),
            avatar_url: String::new(),
            html_url: origin.url(&format!("/{name}")),
            language: String::new(),
            is_admin: name.as_str() == "admin",
            active: true,
            restricted: false,
            prohibit_login: false,
            visibility: "public",
        }
    }
}

/// The owner of a principal's own repositories.
pub(crate) fn owner_of(principal: &Principal) -> Result<OwnerName, ApiError> {
    let user = principal.user().ok_or_else(|| {
        let text = format!("{principal} is no user, and cannot own a repository");
        ApiError::invalid(text)
    })?;
    Ok(user.owner().clone())
}

/// `GET /api/v1/user`: the user of the token.
async fn current_user(by: Authorized<ReadAccount>, origin: Origin) -> Result<Json<User>, ApiError> {
    let owner = owner_of(by.principal())?;
    Ok(Json(User::new(&owner, &origin)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positive_and_exact_as_a_double() {
        assert_eq!(number([0; 8]), 1);
        assert_eq!(number([255; 8]), (1 << NUMBER_BITS) - 1);
        assert_eq!(number([0, 0, 0, 0, 0, 0, 8, 0]), 1);
        assert_eq!(number([0, 0, 0, 0, 0, 0, 16, 0]), 2);
    }
}
