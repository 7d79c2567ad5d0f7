//! Who has sent a request.

use super::keys::KeyDigest;
use crate::lock::LockUnpoisoned;
use hyper::header::{HeaderName, HeaderValue};
use smallvec::SmallVec;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

/// Who has sent a request, as far as that is proven.
#[derive(Clone)]
pub struct Caller {
    /// `key:ci`, or `user:alice` and the groups and certificates beside it. The first one is shown,
    /// and owns jobs. Empty for a caller who has shown nothing.
    pub(super) names: SmallVec<[Arc<str>; 2]>,
    pub(super) credential: Credential,
    /// Names in the certificate of the connection.
    pub(super) certificate: Arc<[Arc<str>]>,
    /// When the credential ends.
    pub(super) expires: Option<SystemTime>,
    /// The rules that mention one of the names, by their index.
    pub(super) rules: SmallVec<[u16; 4]>,
    /// Generation of the rules.
    pub(super) generation: u64,
}

/// What a request has shown, to be checked again under other rules.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credential {
    None,
    Key(KeyDigest),
    Token(Arc<str>),
    /// A plugin that calls a model.
    Plugin,
}

impl Caller {
    /// Returns the name that logs and jobs have; empty for a caller who has shown nothing.
    pub fn name(&self) -> Arc<str> {
        self.names.first().cloned().unwrap_or_default()
    }

    pub fn is_anonymous(&self) -> bool {
        self.names.is_empty()
    }
}

/// The last caller of a connection. Most connections have one, so nothing has to be hashed.
#[derive(Default)]
pub struct CallerMemo(Mutex<Option<Remembered>>);

struct Remembered {
    name: HeaderName,
    value: Box<[u8]>,
    caller: Arc<Caller>,
}

impl CallerMemo {
    /// Returns the caller who has shown the same in the same header under the same rules.
    pub(super) fn get(
        &self,
        (name, value): (&HeaderName, &HeaderValue),
        generation: u64,
    ) -> Option<Arc<Caller>> {
        let memo = self.0.lock_unpoisoned();
        let known = memo.as_ref()?;
        let is_same = *name == known.name && *value.as_bytes() == *known.value;
        (is_same && known.caller.generation == generation).then(|| Arc::clone(&known.caller))
    }

    pub(super) fn set(&self, (name, value): (&HeaderName, &HeaderValue), caller: &Arc<Caller>) {
        // Copied: the header is a part of the buffer of the whole head.
        let (name, value) = (name.clone(), value.as_bytes().into());
        *self.0.lock_unpoisoned() = Some(Remembered { name, value, caller: Arc::clone(caller) });
    }
}
