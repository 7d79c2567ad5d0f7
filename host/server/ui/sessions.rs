//! The operators who have signed in on the page.
//!
//! A session is kept in memory only, under the digest of the value that its cookie has. It ends
//! when the operator signs out, when nothing has been asked for an hour, after 12 hours, or with
//! the process. What its caller may do is decided anew for each request.

use crate::access::Requester;
use crate::error::{Error, Result};
use crate::lock::LockUnpoisoned;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper::HeaderMap;
use hyper::header::{COOKIE, HeaderValue};
use lru::LruCache;
use sha2::{Digest, Sha256};
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

const SESSIONS_MAX: NonZeroUsize = NonZeroUsize::new(256).expect("invariant: not zero");

/// The most sessions of one caller, who must not end those of others.
const CALLER_SESSIONS_MAX: usize = 16;

const LONGEST: Duration = Duration::from_secs(12 * 3600);

const IDLE_MAX: Duration = Duration::from_secs(3600);

/// All sessions of the process.
pub struct Sessions {
    table: Mutex<LruCache<SecretDigest, Session>>,
    /// Cookies belong to a host name, whatever the port, so each process has a name of its own.
    cookie: String,
    /// Whether the cookie is for connections with TLS only.
    is_secure: bool,
    /// The token against forged requests for callers without a session.
    common_token: Secret,
    /// When a refusal was logged last, and how many there were since.
    refusals: Mutex<(Option<Instant>, u64)>,
}

/// The least time between two logged refusals.
const LOG_EVERY: Duration = Duration::from_secs(1);

type SecretDigest = [u8; 32];

struct Session {
    requester: Requester,
    token: Secret,
    began: Instant,
    used: Instant,
}

/// A caller of the page.
pub(super) struct SignedIn {
    pub requester: Requester,
    /// The token that requests must have which change something.
    pub token: Secret,
    /// Whether a session says who it is, and not the request or its connection.
    pub by_session: bool,
}

/// 256 random bits, as text.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    fn generate() -> Result<Self> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| {
            Error::unavailable(format!("cannot make a session: the system returned no random bytes: {error}"))
        })?;
        Ok(Secret(URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares digests, so that the time says nothing about the secret.
    pub fn is(&self, text: &[u8]) -> bool {
        digest(self.0.as_bytes()) == digest(text)
    }
}

fn digest(secret: &[u8]) -> SecretDigest {
    Sha256::digest(secret).into()
}

impl Sessions {
    /// `is_secure` says whether the listener has TLS.
    pub fn new(is_secure: bool) -> Result<Self> {
        let mut process = [0; 4];
        getrandom::fill(&mut process).map_err(|error| {
            Error::unavailable(format!("cannot make a session: the system returned no random bytes: {error}"))
        })?;
        Ok(Sessions {
            table: Mutex::new(LruCache::new(SESSIONS_MAX)),
            cookie: format!("hostler_session_{:08x}", u32::from_ne_bytes(process)),
            is_secure,
            common_token: Secret::generate()?,
            refusals: Mutex::default(),
        })
    }

    /// Begins a session. Returns it with the value of `Set-Cookie`.
    pub(super) fn begin(&self, requester: Requester) -> Result<(SignedIn, HeaderValue)> {
        let (value, token) = (Secret::generate()?, Secret::generate()?);
        let now = Instant::now();
        let session = Session { requester: requester.clone(), token: token.clone(), began: now, used: now };
        let mut table = self.table.lock_unpoisoned();
        let owner = session.requester.owner();
        let own = table.iter().filter(|(_, other)| other.requester.owner() == owner);
        // The least recently used one comes last.
        if let Some(oldest) = own.map(|(key, _)| *key).nth(CALLER_SESSIONS_MAX - 1) {
            table.pop(&oldest);
        }
        table.put(digest(value.as_str().as_bytes()), session);
        drop(table);
        Ok((SignedIn { requester, token, by_session: true }, self.cookie(value.as_str(), LONGEST)))
    }

    /// Returns the session of a request, if it has one.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<SignedIn> {
        let mut table = self.table.lock_unpoisoned();
        let now = Instant::now();
        // A page on another port may have set a cookie of the same name.
        let key = self.values(headers).map(digest).find(|key| table.contains(key))?;
        let session = table.get_mut(&key)?;
        if now.duration_since(session.began) > LONGEST || now.duration_since(session.used) > IDLE_MAX {
            table.pop(&key);
            return None;
        }
        session.used = now;
        let (requester, token) = (session.requester.clone(), session.token.clone());
        Some(SignedIn { requester, token, by_session: true })
    }

    /// Ends the session of a request. Returns the value of `Set-Cookie`.
    pub(super) fn end(&self, headers: &HeaderMap) -> HeaderValue {
        let mut table = self.table.lock_unpoisoned();
        self.values(headers).for_each(|value| drop(table.pop(&digest(value))));
        drop(table);
        self.cookie("", Duration::ZERO)
    }

    /// Counts a refused attempt to sign in. Returns how many before it were not logged, if this one
    /// should be.
    pub(super) fn note_refusal(&self) -> Option<u64> {
        let mut refusals = self.refusals.lock_unpoisoned();
        let now = Instant::now();
        if refusals.0.is_some_and(|logged| now.duration_since(logged) < LOG_EVERY) {
            refusals.1 += 1;
            return None;
        }
        refusals.0 = Some(now);
        Some(std::mem::take(&mut refusals.1))
    }

    /// Returns a caller without a session.
    pub(super) fn without(&self, requester: Requester) -> SignedIn {
        SignedIn { requester, token: self.common_token.clone(), by_session: false }
    }

    /// Returns the values of the cookie in a request.
    fn values<'a>(&'a self, headers: &'a HeaderMap) -> impl Iterator<Item = &'a [u8]> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|cookies| cookies.to_str().ok());
        let cookies = cookies.flat_map(|cookies| cookies.split(';'));
        cookies
            .filter_map(|cookie| cookie.trim().strip_prefix(&*self.cookie)?.strip_prefix('='))
            .map(str::as_bytes)
    }

    /// Without `Path`, a browser sends the cookie only to the folder of the request that has set
    /// it: `/ui/api`.
    fn cookie(&self, value: &str, max_age: Duration) -> HeaderValue {
        let (name, seconds) = (&self.cookie, max_age.as_secs());
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!("{name}={value}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        let mut cookie = HeaderValue::try_from(cookie).expect("invariant: visible ASCII");
        cookie.set_sensitive(true);
        cookie
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(set: &HeaderValue) -> HeaderMap {
        let pair = set.to_str().unwrap().split(';').next().unwrap();
        HeaderMap::from_iter([(COOKIE, HeaderValue::try_from(format!("a=b; {pair}; c=d")).unwrap())])
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let sessions = Sessions::new(true).unwrap();
        let (signed_in, cookie) = sessions.begin(Requester::unrestricted()).unwrap();
        let text = cookie.to_str().unwrap();
        assert!(text.ends_with("; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{text}");
        let found = sessions.find(&headers(&cookie)).unwrap();
        assert!(found.token.is(signed_in.token.as_str().as_bytes()));
        assert!(!sessions.common_token.is(found.token.as_str().as_bytes()));
        let (_, other) = sessions.begin(Requester::unrestricted()).unwrap();
        assert!(sessions.end(&headers(&cookie)).to_str().unwrap().contains("=; Max-Age=0"));
        assert!(sessions.find(&headers(&cookie)).is_none());
        assert!(sessions.find(&headers(&other)).is_some());
        assert!(sessions.find(&HeaderMap::new()).is_none());
        assert!(Sessions::new(true).unwrap().find(&headers(&other)).is_none(), "another process");
    }

    #[test]
    fn sessions_are_bounded_and_end_with_time() {
        let sessions = Sessions::new(false).unwrap();
        let begin = || headers(&sessions.begin(Requester::unrestricted()).unwrap().1);
        let (first, second) = (begin(), begin());
        (2..=CALLER_SESSIONS_MAX).for_each(|_| drop(begin()));
        assert!(sessions.find(&first).is_none(), "the oldest made room");
        assert_eq!(sessions.table.lock_unpoisoned().len(), CALLER_SESSIONS_MAX);
        let age = |by: Duration| {
            let mut table = sessions.table.lock_unpoisoned();
            table.iter_mut().for_each(|(_, session)| session.used = Instant::now().checked_sub(by).unwrap());
        };
        assert!(sessions.find(&second).is_some());
        // A machine that has just started has no moments an hour ago.
        if Instant::now().checked_sub(IDLE_MAX * 2).is_some() {
            age(IDLE_MAX * 2);
            assert!(sessions.find(&second).is_none());
        }
    }
}
