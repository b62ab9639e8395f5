//! Templates that people edit: minijinja, read at run time, with the shipped
//! copies built in. A file of the same name in the site's directory takes the
//! place of the shipped one, from its next use on, without a restart.
//!
//! Undefined names are errors, and no value may leave its place: a value with
//! a control character or with a character that the target syntax would act
//! on is refused, so a label or host name cannot add a line to a script.
//! Used by `netboot`; knows nothing of what is rendered.

use crate::model::Digest;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Value;
use minijinja::{Environment, Output, UndefinedBehavior};
use serde::Serialize;
use std::path::PathBuf;

/// What a rendered value may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    /// iPXE scripts and pxelinux configuration: no control characters, no
    /// variable expansion, no command separators.
    BootScript,
}

impl Syntax {
    fn forbids(self, c: char) -> bool {
        match self {
            Syntax::BootScript => c.is_control() || !c.is_ascii() || "$`|&;\\#".contains(c),
        }
    }
}

/// Why a template did not render.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// Syntax, undefined name, or a refused value; the text names the line.
    #[error("template {name}: {why}")]
    Render {
        /// File name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// There is no such template.
    #[error("there is no template {0}")]
    Missing(String),
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
}

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
            Err(e) => Err(TemplateError::Render { name: name.to_owned(), why: e.to_string() }),
        }
    }

    /// Renders `name` with `values`.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<Rendered, TemplateError> {
        let source = self.source(name)?;
        let fail = |e: minijinja::Error| TemplateError::Render {
            name: name.to_owned(),
            why: match e.line() {
                Some(l) => format!("line {l}: {e}"),
                None => e.to_string(),
            },
        };
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        if let Ok(s) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            env.set_syntax(s);
        }
        env.set_fuel(Some(100_000));
        let syntax = self.syntax;
        env.set_formatter(move |out, _, value| guarded(syntax, out, value));
        let text =
            env.render_named_str(name, &source, minijinja::value::Serde(values)).map_err(fail)?;
        Ok(Rendered { text, template: Digest::of(source.as_bytes()) })
    }

    /// Renders every template with `values` to find faults early; the names
    /// are those of the shipped set.
    pub fn lint(&self, values: &impl Serialize) -> Vec<TemplateError> {
        self.shipped.iter().filter_map(|(n, _)| self.render(n, values).err()).collect()
    }
}

fn guarded(syntax: Syntax, out: &mut Output<'_>, value: &Value) -> Result<(), minijinja::Error> {
    let bad = |why: String| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, why);
    if value.is_undefined() {
        return Err(minijinja::Error::from(minijinja::ErrorKind::UndefinedError));
    }
    let text = value.to_string();
    if let Some(c) = text.chars().find(|c| syntax.forbids(*c)) {
        return Err(bad(format!("a value holds {c:?}, which may not stand here")));
    }
    out.write_str(&text).map_err(|e| bad(e.to_string()))
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
        assert!(e.to_string().contains("line 2"), "{e}");
    }
}
