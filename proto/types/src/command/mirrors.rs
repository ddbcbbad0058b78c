//! The stored form of the commands about mirrors. What an earlier release could say is said under its number.

use super::ShardCommand;
use crate::mirrors::{ChangeMirror, EditMirror, MirrorChange, MirrorWord, RecordMirror, SetMirror};
use crate::stored::{self, DecodeError};

const SET: u16 = 76;
const CHANGE: u16 = 77;
const BEGIN: u16 = 78;
const RECORD: u16 = 79;
const EDIT: u16 = 92;
const SET_WITH_REMOVAL: u16 = 96;
const EDIT_WITH_REMOVAL: u16 = 97;
const DUE_WHATEVER_IT_REMOVES: u16 = 98;
const CAME_THROUGH: u16 = 99;

/// Whether a number is one of those here.
pub(super) const fn are(number: u16) -> bool {
    matches!(number, SET..=RECORD | EDIT | SET_WITH_REMOVAL..=CAME_THROUGH)
}

impl SetMirror {
    pub(super) const fn number(&self) -> u16 {
        match self.removal {
            None => SET,
            Some(_) => SET_WITH_REMOVAL,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let first = (&self.repo, &self.generation, &self.mirror, &self.settings);
        match &self.removal {
            None => stored::encode(SET, 1, &first),
            Some(removal) => stored::encode(SET_WITH_REMOVAL, 1, &(first, removal)),
        }
    }
}

impl EditMirror {
    pub(super) const fn number(&self) -> u16 {
        match self.removal {
            None => EDIT,
            Some(_) => EDIT_WITH_REMOVAL,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let first = (
            (&self.repo, &self.generation, &self.mirror),
            (&self.url, &self.secret, &self.interval_ms, &self.on_push),
        );
        match &self.removal {
            None => stored::encode(EDIT, 1, &first),
            Some(removal) => stored::encode(EDIT_WITH_REMOVAL, 1, &(first, removal)),
        }
    }
}

impl ChangeMirror {
    pub(super) const fn number(&self) -> u16 {
        match self.change {
            MirrorChange::Remove | MirrorChange::Due => CHANGE,
            MirrorChange::DueWhateverItRemoves => DUE_WHATEVER_IT_REMOVES,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        stored::encode(self.number(), 1, self)
    }
}

impl RecordMirror {
    pub(super) const fn number(&self) -> u16 {
        match self.word {
            MirrorWord::Working { .. } | MirrorWord::Ended(_) => RECORD,
            MirrorWord::CameThrough { .. } => CAME_THROUGH,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        stored::encode(self.number(), 1, self)
    }
}

/// Reads the body of one of [`are`].
pub(super) fn decode(number: u16, version: u16, bytes: &[u8]) -> Result<ShardCommand, DecodeError> {
    match number {
        SET => {
            let body = stored::body(number, version, bytes)?;
            let (repo, generation, mirror, settings) = body;
            Ok(ShardCommand::SetMirror(SetMirror {
                repo,
                generation,
                mirror,
                settings,
                removal: None,
            }))
        }
        SET_WITH_REMOVAL => {
            let body = stored::body(number, version, bytes)?;
            let ((repo, generation, mirror, settings), removal) = body;
            Ok(ShardCommand::SetMirror(SetMirror {
                repo,
                generation,
                mirror,
                settings,
                removal: Some(removal),
            }))
        }
        EDIT => {
            let body = stored::body(number, version, bytes)?;
            let ((repo, generation, mirror), (url, secret, interval_ms, on_push)) = body;
            Ok(ShardCommand::EditMirror(EditMirror {
                repo,
                generation,
                mirror,
                url,
                secret,
                interval_ms,
                on_push,
                removal: None,
            }))
        }
        EDIT_WITH_REMOVAL => {
            let body = stored::body(number, version, bytes)?;
            let (((repo, generation, mirror), (url, secret, interval_ms, on_push)), removal) = body;
            Ok(ShardCommand::EditMirror(EditMirror {
                repo,
                generation,
                mirror,
                url,
                secret,
                interval_ms,
                on_push,
                removal: Some(removal),
            }))
        }
        CHANGE | DUE_WHATEVER_IT_REMOVES => {
            stored::body(number, version, bytes).map(ShardCommand::ChangeMirror)
        }
        BEGIN => stored::body(number, version, bytes).map(ShardCommand::BeginMirror),
        RECORD | CAME_THROUGH => {
            stored::body(number, version, bytes).map(ShardCommand::RecordMirror)
        }
        _ => Err(DecodeError::Number {
            expected: SET,
            found: number,
        }),
    }
}
