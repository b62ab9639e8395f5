//! What a bucket answers when it does not do what was asked, in words that a
//! person can use. An S3 error's body may repeat the key id and the whole
//! signed request: only its code and message are passed on.

use super::StorageError;
use object_store::Error;

/// Longest reason that is passed on.
const LONGEST: usize = 300;
/// Codes of S3 and its likes for a bucket without room.
const FULL: [&str; 4] =
    ["XMinioStorageFull", "QuotaExceeded", "InsufficientStorage", "507 Insufficient Storage"];

pub(super) fn failed(e: Error) -> StorageError {
    let why = reason(&e);
    let text = e.to_string();
    if FULL.iter().any(|f| text.contains(f)) {
        return StorageError::Full { what: format!("the bucket says: {why}") };
    }
    StorageError::Away(why)
}

/// `None` for what is not there. A bucket that is not there is another thing.
pub(super) fn found<T>(r: object_store::Result<T>) -> Result<Option<T>, StorageError> {
    match r {
        Ok(t) => Ok(Some(t)),
        Err(e @ Error::NotFound { .. }) if e.to_string().contains("NoSuchBucket") => Err(failed(e)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(failed(e)),
    }
}

fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0)
}

/// The bottom of the chain of sources, or the code and message in the body.
fn reason(e: &Error) -> String {
    let text = e.to_string();
    let said = element(&text, "Code").map(|code| match element(&text, "Message") {
        Some(m) => format!("{code}: {m}"),
        None => code.to_owned(),
    });
    let said = said.unwrap_or_else(|| {
        let mut at: &dyn std::error::Error = e;
        while let Some(s) = at.source() {
            at = s;
        }
        at.to_string()
    });
    // A body that is no S3 error is some other server's page.
    let line = said.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> Error {
        Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn the_code_and_message_are_told_and_the_key_is_not() {
        let body = "Server returned non-2xx status code: 403 Forbidden: <Error>\
            <Code>SignatureDoesNotMatch</Code><Message>the signature is wrong</Message>\
            <AWSAccessKeyId>AKIDEXAMPLE</AWSAccessKeyId></Error>";
        let e = failed(generic(body)).to_string();
        assert!(e.contains("SignatureDoesNotMatch: the signature is wrong"), "{e}");
        assert!(!e.contains("AKIDEXAMPLE"), "{e}");
    }

    #[test]
    fn a_bucket_without_room_is_a_full_disk() {
        let full = generic("507: <Error><Code>XMinioStorageFull</Code></Error>");
        assert!(matches!(failed(full), StorageError::Full { .. }));
        let gone = Error::NotFound {
            path: "x".into(),
            source: "<Code>NoSuchBucket</Code><Message>no bucket</Message>".to_owned().into(),
        };
        assert!(matches!(found::<()>(Err(gone)), Err(StorageError::Away(_))));
        let absent = Error::NotFound { path: "x".into(), source: "NoSuchKey".to_owned().into() };
        assert!(matches!(found::<()>(Err(absent)), Ok(None)));
    }
}
