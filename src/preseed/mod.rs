//! Installs by the distribution's own installer: preseed files for Debian's,
//! autoinstall for Ubuntu's, and the scripts that both call. Values go in, text
//! and the digests of the templates come out; nothing is fetched or served.
//!
//! Two guards stand one behind the other. [`Values::check`] says early and in
//! words what a field must be; the filters in `preseed/` and the rules of
//! [`template`](crate::template) hold also where a site's own template puts a
//! value into a place that nobody thought of. `lint` runs what is rendered from
//! examples through the programs that will read it.

mod debconf;
mod lint;
mod plan;
mod progress;
mod schema;
#[cfg(test)]
mod tests;
mod values;
mod yaml;

pub use debconf::{Answer, parse as parse_answers};
pub use lint::Finding;
pub use plan::Around;
pub use progress::{Progress, Sign};
pub use values::{Disk, InvalidValue, Mirror, ProfileScripts, Security, Values};

use crate::model::Secret;
use crate::template::{Rendered, Syntax, TemplateError, Templates};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        /// The shipped templates, see `preseed/`.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../preseed/", $name)))),*];
    };
}

shipped!(
    "debian-12.cfg",
    "debian-13.cfg",
    "ubuntu-16.04.cfg",
    "ubuntu-18.04.cfg",
    "ubuntu-20.04.cfg",
    "user-data.yaml",
    "meta-data.yaml",
    "early.sh",
    "late.sh",
    // Included by the ones above.
    "locale.cfg",
    "network.cfg",
    "mirror.cfg",
    "user.cfg",
    "disk.cfg",
    "packages.cfg",
    "ubuntu.cfg",
    "bootloader.cfg",
    "commands.cfg",
    "finish.cfg",
    "storage.yaml",
    "ask.sh",
    "disk.sh",
);

/// A release that the Debian installer installs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Debian 12.
    Debian12,
    /// Debian 13.
    Debian13,
    /// Ubuntu 16.04.
    Ubuntu1604,
    /// Ubuntu 18.04.
    Ubuntu1804,
    /// Ubuntu 20.04.
    Ubuntu2004,
}

impl Release {
    /// All of them.
    pub const ALL: [Release; 5] = [
        Release::Debian12,
        Release::Debian13,
        Release::Ubuntu1604,
        Release::Ubuntu1804,
        Release::Ubuntu2004,
    ];

    /// As images are named.
    pub fn as_str(self) -> &'static str {
        match self {
            Release::Debian12 => "debian-12",
            Release::Debian13 => "debian-13",
            Release::Ubuntu1604 => "ubuntu-16.04",
            Release::Ubuntu1804 => "ubuntu-18.04",
            Release::Ubuntu2004 => "ubuntu-20.04",
        }
    }

    /// Whether its libcrypt knows yescrypt: since libxcrypt 4.
    fn knows_yescrypt(self) -> bool {
        !matches!(self, Release::Ubuntu1604 | Release::Ubuntu1804)
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Release {
    type Err = PreseedError;
    fn from_str(s: &str) -> Result<Self, PreseedError> {
        let found = Release::ALL.into_iter().find(|r| r.as_str() == s);
        found.ok_or_else(|| PreseedError::Unknown(s.to_owned()))
    }
}

/// A file that an installer asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum File {
    /// The preseed file.
    Preseed(Release),
    /// NoCloud `user-data` with autoinstall: Ubuntu 22.04 and later.
    UserData,
    /// NoCloud `meta-data`.
    MetaData,
    /// The script with the installer's steps: `GET /node/early`.
    Early,
    /// The script that makes the installed system a node: `GET /node/late`.
    Late,
}

impl File {
    /// All of them.
    pub fn all() -> impl Iterator<Item = File> {
        let rest = [File::UserData, File::MetaData, File::Early, File::Late];
        Release::ALL.into_iter().map(File::Preseed).chain(rest)
    }

    /// The template's name.
    pub fn template(self) -> String {
        match self {
            File::Preseed(release) => format!("{release}.cfg"),
            File::UserData => "user-data.yaml".to_owned(),
            File::MetaData => "meta-data.yaml".to_owned(),
            File::Early => "early.sh".to_owned(),
            File::Late => "late.sh".to_owned(),
        }
    }
}

/// Why there is no text.
#[derive(Debug, thiserror::Error)]
pub enum PreseedError {
    /// No templates for this release.
    #[error(
        "there is no preseed file for {0:?}; there are debian-12, debian-13, ubuntu-16.04, \
             ubuntu-18.04, ubuntu-20.04, and autoinstall for Ubuntu 22.04 and later"
    )]
    Unknown(String),
    /// A value is not what it must be.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// A template is broken, or refuses a value.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// The templates, the site's own over the shipped ones.
#[derive(Debug, Clone)]
pub struct Preseeds {
    templates: Templates,
}

impl Preseeds {
    /// `site` is the directory of the site's own templates.
    pub fn new(site: PathBuf) -> Self {
        Self { templates: Templates::new(site, SHIPPED, Syntax::ByExtension) }
    }

    /// Renders `file` for the node that `values` describe.
    pub fn render(&self, file: File, values: &Values) -> Result<Rendered, PreseedError> {
        values.check()?;
        if let File::Preseed(release) = file
            && !release.knows_yescrypt()
            && values.password_hash.as_deref().is_some_and(|h| h.starts_with("$y$"))
        {
            let right = format!("{release} knows no yescrypt: a $6$ hash");
            return Err(InvalidValue::hidden("password_hash", right).into());
        }
        Ok(self.templates.render(&file.template(), &values.shown())?)
    }

    /// All templates rendered from examples and read by what will read them:
    /// what is wrong, each with file and line. Runs `sh -n`, and
    /// `debconf-set-selections -c` where it is installed, which takes seconds
    /// and waits while packages are being installed.
    pub fn lint(&self) -> Vec<Finding> {
        lint::files(&self.templates, &File::all().collect::<Vec<_>>(), true)
    }

    /// The same without debconf, for a server that starts: the lines are
    /// checked by our own reading of them alone.
    pub fn lint_quickly(&self) -> Vec<Finding> {
        self.lint_files(&File::all().collect::<Vec<_>>())
    }

    /// Only some of them, without debconf: milliseconds.
    pub fn lint_files(&self, files: &[File]) -> Vec<Finding> {
        lint::files(&self.templates, files, false)
    }
}

/// `text` as it may be recorded and shown: without the build's token.
pub fn without_token(text: &str, token: &Secret) -> String {
    if token.expose().is_empty() { text.to_owned() } else { text.replace(token.expose(), "***") }
}
