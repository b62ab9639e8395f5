//! Sessions of the operator's window. A session is a cookie and nothing else:
//! the digest of the API token that opened it, its end, a number of its own,
//! and a MAC over these. What the token may do is looked up at every request,
//! so that a token taken away ends its sessions at once.

use super::seal::random;
use super::{AuthError, MasterKey};
use crate::model::{Digest, Secret, Time};
use ring::hmac;

/// How long a session lasts.
pub const LASTS: jiff::SignedDuration = jiff::SignedDuration::from_hours(12);

/// A genuine session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The token that opened it.
    pub token: Digest,
    /// Its end.
    pub until: Time,
    /// What tells it from the other sessions of the token: 32 hexadecimal
    /// digits.
    pub number: String,
}

impl Session {
    fn text(&self) -> String {
        format!("{}.{}.{}", self.token.to_hex(), self.until.as_second(), self.number)
    }
}

impl MasterKey {
    /// A session for the holder of `token`, as a cookie's value.
    ///
    /// # Errors
    /// No randomness.
    pub fn open_session(&self, token: &Digest, until: Time) -> Result<Secret, AuthError> {
        let s = Session { token: *token, until, number: hex::encode(random::<16>()?) };
        let text = s.text();
        let tag = hmac::sign(&self.sessions, text.as_bytes());
        Ok(Secret::new(format!("{text}.{}", hex::encode(tag.as_ref()))))
    }

    /// The session in a cookie's value, if it is genuine and has not ended.
    pub fn session(&self, cookie: &str, now: Time) -> Option<Session> {
        let (text, tag) = cookie.rsplit_once('.')?;
        let tag = hex::decode(tag).ok()?;
        hmac::verify(&self.sessions, text.as_bytes(), &tag).ok()?;
        let mut parts = text.split('.');
        let (token, until, number) = (parts.next()?, parts.next()?, parts.next()?);
        let mut raw = [0u8; 32];
        hex::decode_to_slice(token, &mut raw).ok()?;
        let until = Time::from_second(until.parse().ok()?).ok()?;
        let s = Session { token: Digest::from_raw(raw), until, number: number.to_owned() };
        (until > now).then_some(s)
    }

    /// What every form of a session carries: nobody else can make one, so a
    /// post that has it came from our page.
    pub fn form_token(&self, s: &Session) -> Secret {
        let tag = hmac::sign(&self.forms, s.text().as_bytes());
        Secret::new(hex::encode(&tag.as_ref()[..16]))
    }

    /// Whether `given` is the form token of `s`; takes as long either way.
    pub fn form_token_fits(&self, s: &Session, given: &str) -> bool {
        let right = self.form_token(s);
        subtle::ConstantTimeEq::ct_eq(right.expose().as_bytes(), given.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_genuine_until_it_ends_and_cannot_be_changed() {
        let key = |n| MasterKey::from_bytes(&[n; 32]).unwrap();
        let now = Time::now();
        let (token, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let c = key(1).open_session(&token, now + LASTS).unwrap();
        let s = key(1).session(c.expose(), now).unwrap();
        assert_eq!(s.token, token);
        assert_eq!(key(2).session(c.expose(), now), None);
        assert_eq!(key(1).session(c.expose(), now + LASTS + LASTS), None);
        let forged = c.expose().replacen(&token.to_hex(), &other.to_hex(), 1);
        assert_eq!(key(1).session(&forged, now), None);
        for junk in ["", ".", "...", "a.b.c.d", "..00"] {
            assert_eq!(key(1).session(junk, now), None);
        }
    }

    #[test]
    fn a_form_belongs_to_one_session_and_is_not_the_cookie() {
        let key = MasterKey::from_bytes(&[1; 32]).unwrap();
        let now = Time::now();
        let open = || {
            let c = key.open_session(&Digest::of(b"a"), now + LASTS).unwrap();
            (key.session(c.expose(), now).unwrap(), c)
        };
        let ((a, cookie), (b, _)) = (open(), open());
        let form = key.form_token(&a);
        assert!(key.form_token_fits(&a, form.expose()));
        assert!(!key.form_token_fits(&b, form.expose()));
        assert!(!key.form_token_fits(&a, "") && !key.form_token_fits(&a, cookie.expose()));
        assert!(!cookie.expose().contains(form.expose()));
    }
}
