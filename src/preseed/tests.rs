//! Hostile values: whatever stands in a field, a file has the answers, keys
//! and words that it has with harmless values, or is refused.

use super::values::Values;
use super::yaml::{self, Kind, Node};
use super::{File, Preseeds, SHIPPED, debconf};
use crate::template::{Syntax, Templates};
use proptest::prelude::*;
use serde_json::Value;

/// What must stay the same.
fn shape(name: &str, text: &str) -> String {
    match Syntax::ByExtension.of(name) {
        Syntax::Debconf => {
            let (answers, faults) = debconf::parse(text);
            assert!(faults.is_empty(), "{name}: {faults:?}\n{text}");
            let keys: Vec<String> =
                answers.iter().map(|a| format!("{} {} {}", a.owner, a.key, a.kind)).collect();
            format!("{} lines\n{}", text.lines().count(), keys.join("\n"))
        }
        Syntax::Yaml => {
            let document = yaml::parse(text).unwrap_or_else(|e| panic!("{name}: {e:?}\n{text}"));
            let mut out = String::new();
            keys(&document, &mut out);
            out
        }
        _ => words(text),
    }
}

fn keys(node: &Node, out: &mut String) {
    match &node.kind {
        Kind::Map(entries) => {
            for (key, value) in entries {
                out.push_str(&format!("({key}:"));
                keys(value, out);
                out.push(')');
            }
        }
        Kind::List(items) => {
            out.push('[');
            items.iter().for_each(|i| keys(i, out));
            out.push(']');
        }
        _ => out.push_str(node.type_name()),
    }
}

/// A shell script with the text of its single-quoted pieces left out: all that
/// a shell acts on. `'\''` inside one does not end it.
fn words(script: &str) -> String {
    let script = script.replace(r"'\''", "");
    let mut out = String::new();
    let mut quoted = false;
    for line in script.split_inclusive('\n') {
        // An apostrophe in a comment or in double quotes opens nothing.
        for c in line.chars() {
            if c == '\'' {
                quoted = !quoted;
            } else if !quoted {
                out.push(c);
            }
        }
    }
    out
}

const EVIL: &[&str] = &[
    "a\nd-i passwd/root-login boolean true",
    "a\r\nd-i x/y string z",
    "x\\",
    "'; reboot; '",
    "'\"'\"'; reboot #",
    "$(reboot)",
    "`reboot`",
    "\"; reboot; \"",
    "a\": {b: c}",
    "\n  evil: true",
    "- x",
    "&a *a !!x",
    "{{ token }}",
    "{% include 'x' %}",
    "\u{85}evil: 1",
    "\u{2028}evil: 1",
    "\u{0}",
    "#",
    " lead and trail ",
    "\u{feff}",
    "%s%n",
    "../../etc/passwd",
];

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(EVIL).prop_map(str::to_owned),
        (any::<String>(), proptest::sample::select(EVIL), any::<String>())
            .prop_map(|(a, b, c)| format!("{a}{b}{c}")),
        "[ -~\n\t]{0,40}",
        any::<String>(),
    ]
}

/// Every text in `value`, as a path of keys and indices.
fn texts(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::String(_) => out.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, v)| texts(v, &format!("{at}/{n}"), out));
        }
        Value::Object(map) => map.iter().for_each(|(k, v)| texts(v, &format!("{at}/{k}"), out)),
        _ => {}
    }
}

fn shipped() -> Templates {
    Templates::new("/nonexistent".into(), SHIPPED, Syntax::ByExtension)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The filters alone, without the check of values in front of them: one
    /// field at a time, in each of the files.
    #[test]
    fn no_value_changes_what_a_file_says(evil in hostile(), pick in any::<prop::sample::Index>()) {
        let templates = shipped();
        let harmless = Values::example(true).unwrap().shown();
        let mut fields = Vec::new();
        texts(&harmless, "", &mut fields);
        let field = pick.get(&fields);
        // Empty decides which lines there are; the template says so itself.
        prop_assume!(!evil.is_empty());
        let mut values = harmless.clone();
        *values.pointer_mut(field).unwrap() = Value::String(evil.clone());
        for file in File::all() {
            let name = file.template();
            let Ok(rendered) = templates.render(&name, &values) else { continue };
            let before = templates.render(&name, &harmless).unwrap();
            // `mirror/http/…` has the protocol in its key.
            if field == "/mirror/protocol" && matches!(file, File::Preseed(_)) {
                continue;
            }
            prop_assert_eq!(
                shape(&name, &before.text), shape(&name, &rendered.text), "{} {} {:?}", name, field, evil
            );
        }
    }

    /// Label names are keys of ours, not of a file.
    #[test]
    fn no_label_changes_what_a_file_says(name in hostile(), value in hostile()) {
        let preseeds = Preseeds::new("/nonexistent".into());
        let mut values = Values::example(true).unwrap();
        let before = preseeds.render(File::Late, &values).unwrap().text;
        values.labels = [(name, value)].into();
        if let Ok(rendered) = preseeds.render(File::Late, &values) {
            prop_assert_eq!(words(&before), words(&rendered.text));
        }
    }
}

#[test]
fn most_hostile_values_are_no_reason_to_refuse_a_label() {
    let preseeds = Preseeds::new("/nonexistent".into());
    let mut values = Values::example(true).unwrap();
    for fine in ["it's \"rack\" 1", "$(x) `y`", "ж \\", "{{ token }}"] {
        values.labels = [("a".to_owned(), fine.to_owned())].into();
        assert!(preseeds.render(File::Late, &values).is_ok(), "{fine:?}");
    }
}

#[test]
fn a_password_is_not_taken_for_a_hash_nor_repeated() {
    let preseeds = Preseeds::new("/nonexistent".into());
    let mut values = Values::example(true).unwrap();
    values.password_hash = Some("hunter2".into());
    let e = preseeds.render(File::UserData, &values).unwrap_err().to_string();
    assert!(e.contains("mkpasswd") && !e.contains("hunter2"), "{e}");
    values.password_hash = Some(format!("$y$j9T$salt${}", "a".repeat(43)));
    for file in File::all() {
        let old = matches!(file.template().as_str(), "ubuntu-16.04.cfg" | "ubuntu-18.04.cfg");
        assert_eq!(preseeds.render(file, &values).is_err(), old, "{file:?}");
    }
    values.password_hash = None;
    let text = preseeds.render(File::Preseed(super::Release::Debian13), &values).unwrap().text;
    assert!(text.contains("passwd/user-password-crypted password !\n"), "{text}");
}
