//! Templates that people edit: minijinja, read at run time, with the shipped
//! copies built in. A file of the same name in the site's directory takes the
//! place of the shipped one, from its next use on, without a restart.
//!
//! Undefined names are errors, and no value may leave its place: a value with
//! a control character or with a character that the target syntax would act
//! on is refused, so a label or host name cannot add a line to a script.
//! A template may include others of its set; a site's own file takes the place
//! of an included one too. Used by `netboot` and `preseed`; knows nothing of
//! what is rendered.

mod escape;

pub use escape::{Syntax, is_password_hash};

use crate::model::Digest;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a template did not render.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Syntax, undefined name, or a refused value.
    #[error("template {}: {why}", place(.name, *.line))]
    Render {
        /// File, which may be one that was included.
        name: String,
        /// Line in it, where it is known.
        line: Option<usize>,
        /// What is wrong.
        why: String,
    },
    /// There is no such template.
    #[error("there is no template {0}")]
    Missing(String),
}

/// `file:line`, or `file`.
pub fn place(file: &str, line: Option<usize>) -> String {
    line.map_or_else(|| file.to_owned(), |l| format!("{file}:{l}"))
}

/// A directory of templates over a shipped set.
#[derive(Debug, Clone)]
pub struct Templates {
    site: PathBuf,
    shipped: &'static [(&'static str, &'static str)],
    syntax: Syntax,
}

/// A finished text and what it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Digest of the template.
    pub template: Digest,
    /// Digests of the template and of all that it included, by name.
    pub files: BTreeMap<String, Digest>,
}

/// What is done to a source before it is rendered, by file name.
pub type Prepare = fn(&str, String) -> String;

impl Templates {
    /// `shipped` is (file name, text).
    pub fn new(
        site: PathBuf,
        shipped: &'static [(&'static str, &'static str)],
        syntax: Syntax,
    ) -> Self {
        Self { site, shipped, syntax }
    }

    /// The source of a template: the site's, else the shipped one.
    pub fn source(&self, name: &str) -> Result<String, TemplateError> {
        match std::fs::read_to_string(self.site.join(name)) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => self
                .shipped
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, text)| (*text).to_owned())
                .ok_or_else(|| TemplateError::Missing(name.to_owned())),
            Err(e) => {
                let name = name.to_owned();
                Err(TemplateError::Render { name, line: None, why: e.to_string() })
            }
        }
    }

    /// Renders `name` with `values`.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<Rendered, TemplateError> {
        self.render_prepared(name, values, |_, source| source)
    }

    /// The same with every source passed through `prepare`, as a lint needs it
    /// to find the way back from the text to the file. Digests are of the
    /// sources as they are.
    pub fn render_prepared(
        &self,
        name: &str,
        values: &impl Serialize,
        prepare: Prepare,
    ) -> Result<Rendered, TemplateError> {
        let source = self.source(name)?;
        let template = Digest::of(source.as_bytes());
        let files = Arc::new(Mutex::new(BTreeMap::from([(name.to_owned(), template)])));
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let blocks = self.syntax == Syntax::ByExtension;
        let config = SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .trim_blocks(blocks)
            .lstrip_blocks(blocks)
            .build();
        if let Ok(s) = config {
            env.set_syntax(s);
        }
        env.set_fuel(Some(100_000));
        escape::add_filters(&mut env);
        let syntax = self.syntax.of(name);
        env.set_formatter(move |out, _, value| escape::guarded(syntax, out, value));
        let (set, used) = (self.clone(), files.clone());
        env.set_loader(move |included| set.included(included, &used, prepare));
        let text = env
            .render_named_str(name, &prepare(name, source), minijinja::value::Serde(values))
            .map_err(|e| fault(name, &e))?;
        drop(env);
        let files = files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Rendered { text, template, files })
    }

    /// The source of an included file. Plain names only: a template does not
    /// read the rest of the disk.
    fn included(
        &self,
        name: &str,
        used: &Mutex<BTreeMap<String, Digest>>,
        prepare: Prepare,
    ) -> Result<Option<String>, minijinja::Error> {
        if name.contains('/') || name.starts_with('.') {
            return Ok(None);
        }
        match self.source(name) {
            Ok(source) => {
                let digest = Digest::of(source.as_bytes());
                let mut used = used.lock().unwrap_or_else(PoisonError::into_inner);
                used.insert(name.to_owned(), digest);
                Ok(Some(prepare(name, source)))
            }
            Err(TemplateError::Missing(_)) => Ok(None),
            Err(e) => {
                Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, e.to_string()))
            }
        }
    }

    /// Renders every template with `values` to find faults early; the names
    /// are those of the shipped set.
    pub fn lint(&self, values: &impl Serialize) -> Vec<TemplateError> {
        self.shipped.iter().filter_map(|(n, _)| self.render(n, values).err()).collect()
    }
}

/// The innermost cause: an error in an included file names that file's line.
fn fault(name: &str, error: &minijinja::Error) -> TemplateError {
    let mut inner = error;
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if let Some(e) = cause.downcast_ref::<minijinja::Error>()
            && e.line().is_some()
        {
            inner = e;
        }
        next = cause.source();
    }
    let why = match inner.detail() {
        Some(detail) => format!("{}: {detail}", inner.kind()),
        None => inner.kind().to_string(),
    };
    TemplateError::Render { name: inner.name().unwrap_or(name).to_owned(), line: inner.line(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &[(&str, &str)] = &[("a.ipxe", "#!ipxe\necho {{ node }}\n")];

    fn t(dir: &std::path::Path) -> Templates {
        Templates::new(dir.to_owned(), SHIPPED, Syntax::BootScript)
    }

    #[test]
    fn a_sites_own_file_counts_from_its_next_use() {
        let dir = tempfile::tempdir().unwrap();
        let v = serde_json::json!({ "node": "n1" });
        let shipped = t(dir.path()).render("a.ipxe", &v).unwrap();
        assert_eq!(shipped.text, "#!ipxe\necho n1\n");
        std::fs::write(dir.path().join("a.ipxe"), "#!ipxe\necho own {{ node }}\n").unwrap();
        let own = t(dir.path()).render("a.ipxe", &v).unwrap();
        assert_eq!(own.text, "#!ipxe\necho own n1\n");
        assert_ne!(own.template, shipped.template);
    }

    #[test]
    fn no_value_can_add_a_line_or_a_command() {
        let dir = tempfile::tempdir().unwrap();
        for evil in ["a\nshell", "a\rb", "${net0/ip}", "a && shell", "a|b", "a;b"] {
            let v = serde_json::json!({ "node": evil });
            assert!(t(dir.path()).render("a.ipxe", &v).is_err(), "{evil:?}");
        }
    }

    #[test]
    fn an_undefined_name_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let e = t(dir.path()).render("a.ipxe", &serde_json::json!({})).unwrap_err();
        assert!(e.to_string().contains("a.ipxe:2: "), "{e}");
    }

    const SET: &[(&str, &str)] = &[
        ("a.cfg", "{% include \"b.cfg\" %}\nd-i a/user string {{ user }}\n"),
        ("b.cfg", "# b\nd-i b/node string {{ node }}\n"),
        ("c.sh", "echo {{ node | sh }}\n{% include \"d.sh\" %}\n"),
        ("d.sh", "echo {{ node }}\n"),
        ("e.yaml", "a: {{ node | yaml }}\n"),
    ];

    fn set(dir: &std::path::Path) -> Templates {
        Templates::new(dir.to_owned(), SET, Syntax::ByExtension)
    }

    #[test]
    fn a_sites_file_takes_the_place_of_an_included_one() {
        let dir = tempfile::tempdir().unwrap();
        let v = serde_json::json!({ "node": "n1", "user": "ops" });
        let shipped = set(dir.path()).render("a.cfg", &v).unwrap();
        assert_eq!(shipped.text, "# b\nd-i b/node string n1\nd-i a/user string ops\n");
        assert_eq!(shipped.files.keys().collect::<Vec<_>>(), ["a.cfg", "b.cfg"]);
        std::fs::write(dir.path().join("b.cfg"), "# own\n").unwrap();
        let own = set(dir.path()).render("a.cfg", &v).unwrap();
        assert!(own.text.starts_with("# own\n"), "{}", own.text);
        assert_eq!(own.template, shipped.template);
        assert_ne!(own.files["b.cfg"], shipped.files["b.cfg"]);
    }

    #[test]
    fn a_fault_in_an_included_file_names_that_files_line() {
        let dir = tempfile::tempdir().unwrap();
        let v = serde_json::json!({ "user": "ops" });
        let e = set(dir.path()).render("a.cfg", &v).unwrap_err().to_string();
        assert!(e.contains("b.cfg:2: "), "{e}");
        let v = serde_json::json!({ "node": "n1" });
        let e = set(dir.path()).render("c.sh", &v).unwrap_err().to_string();
        assert!(e.contains("d.sh:1: ") && e.contains("| sh"), "{e}");
    }

    #[test]
    fn a_value_is_dressed_for_its_place_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        for evil in ["a\nb", "a\\", " a", "a'b", "$(x)", "a\u{2028}b"] {
            let v = serde_json::json!({ "node": evil, "user": "ops" });
            assert!(set(dir.path()).render("a.cfg", &v).is_err(), "{evil:?}");
        }
        let v = serde_json::json!({ "node": "a\": 'b' \u{85}" });
        assert!(set(dir.path()).render("e.yaml", &v).is_err());
        let v = serde_json::json!({ "node": "a\": é" });
        let text = set(dir.path()).render("e.yaml", &v).unwrap().text;
        assert_eq!(text, "a: \"a\\\": \\u00e9\"\n");
        let own = dir.path().join("d.sh");
        std::fs::write(own, "").unwrap();
        let v = serde_json::json!({ "node": "it's" });
        assert_eq!(set(dir.path()).render("c.sh", &v).unwrap().text, "echo 'it'\\''s'\n");
    }
}
