//! What goes wrong, as the specification's error bodies say it
//! ("Error Codes"), and what goes wrong when a registry is opened.

use super::storage::StorageError;
use crate::model::Invalid;
use serde_json::{Value, json};

/// The codes of the specification, and one of ours for a full disk (a code
/// "MUST be a unique identifier, containing only uppercase alphabetic
/// characters and underscores").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the specification names them")]
pub enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    InsufficientStorage,
    Unknown,
}

impl Code {
    /// As written in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::InsufficientStorage => "INSUFFICIENT_STORAGE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The HTTP status that goes with it unless another is said.
    pub fn status(self) -> u16 {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestBlobUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => 404,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::SizeInvalid => 400,
            Self::Unauthorized => 401,
            Self::Denied => 403,
            Self::Unsupported => 405,
            Self::TooManyRequests => 429,
            Self::InsufficientStorage => 507,
            Self::Unknown => 500,
        }
    }
}

/// A refusal or failure of one request.
#[derive(Debug, Clone)]
pub struct Fault {
    /// HTTP status.
    pub status: u16,
    /// Code of the specification.
    pub code: Code,
    /// For a person.
    pub message: String,
    /// For a program; `null` when there is nothing to add.
    pub detail: Value,
    /// Headers that belong to it: `Range`, `WWW-Authenticate`, `Retry-After`.
    pub headers: Vec<(&'static str, String)>,
}

impl Fault {
    /// With the code's own status.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status(),
            code,
            message: message.into(),
            detail: Value::Null,
            headers: Vec::new(),
        }
    }

    /// With another status.
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// With more for a program.
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = detail;
        self
    }

    /// With a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A value in a path or query that is not as it must be.
    pub fn invalid(code: Code, e: &Invalid) -> Self {
        Self::new(code, e.to_string())
    }

    /// The body.
    pub fn body(&self) -> Value {
        let mut one = json!({ "code": self.code.as_str(), "message": self.message });
        if !self.detail.is_null() {
            one["detail"] = self.detail.clone();
        }
        json!({ "errors": [one] })
    }
}

impl From<StorageError> for Fault {
    fn from(e: StorageError) -> Self {
        match e {
            StorageError::Full { .. } => Self::new(
                Code::InsufficientStorage,
                "the registry's disk is full; nothing of this request was kept: free room or collect garbage, then push again",
            ),
            StorageError::Busy => Self::new(
                Code::BlobUploadInvalid,
                "another request is writing to this upload; ask for its state, then go on from there",
            )
            .status(409),
            StorageError::NoUpload => {
                Self::new(Code::BlobUploadUnknown, "no such upload: begin a new one")
            }
            StorageError::Away(why) => {
                tracing::error!(why, "the registry's bucket cannot be used");
                Self::new(
                    Code::Unknown,
                    "the registry's bucket cannot be used now; /readyz says why: try again soon",
                )
                .status(503)
                .header("Retry-After", "5")
            }
            e => {
                // The path stays in the log: it is nothing for a stranger.
                tracing::error!(error = %e, "registry storage");
                Self::new(Code::Unknown, "the registry's storage failed; its log says why")
            }
        }
    }
}

/// Why a registry cannot be opened, checked, exported or cleaned.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The storage.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Settings that cannot work.
    #[error("registry settings: {0}")]
    Settings(String),
    /// Another server or process collects garbage in the same store.
    #[error("garbage is being collected by another process: wait for it")]
    Collecting,
    /// Something named is not there or is not right.
    #[error("{0}")]
    Content(String),
    /// A file of an export or import.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl From<Fault> for RegistryError {
    fn from(f: Fault) -> Self {
        Self::Content(format!("{}: {}", f.code.as_str(), f.message))
    }
}
