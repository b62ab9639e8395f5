//! The rules of autoinstall, and a check by them. `autoinstall.json` states
//! the published schema's rules for version 1 in the few words of JSON Schema
//! that are known here: type, properties, required, additionalProperties,
//! items, enum, minimum, maximum. A key that autoinstall does not have is a
//! fault, although version 1 ignores it: it is a misspelt one.

use super::yaml::{Kind, Node};
use serde_json::Value;

const RULES: &str = include_str!("autoinstall.json");

/// Checks a `user-data` document: what is wrong, by line.
pub(super) fn check(document: &Node) -> Vec<(usize, String)> {
    let mut faults = Vec::new();
    match serde_json::from_str(RULES) {
        Ok(rules) => against(&rules, document, "user-data", &mut faults),
        Err(e) => faults.push((1, format!("the rules themselves: {e}"))),
    }
    faults
}

fn against(rule: &Value, node: &Node, at: &str, faults: &mut Vec<(usize, String)>) {
    let types: Vec<&str> = match rule.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.contains(&node.type_name()) {
        let fault = format!("{at} is {}; it must be {}", node.type_name(), types.join(" or "));
        return faults.push((node.line, fault));
    }
    let allowed = rule.get("enum").and_then(Value::as_array);
    match &node.kind {
        Kind::Map(entries) => object(rule, entries, node.line, at, faults),
        Kind::List(items) => {
            for (n, item) in items.iter().enumerate() {
                if let Some(rule) = rule.get("items") {
                    against(rule, item, &format!("{at}[{n}]"), faults);
                }
            }
        }
        Kind::Text(text) => {
            if let Some(allowed) = allowed.filter(|a| !a.iter().any(|v| v == text.as_str())) {
                let words: Vec<String> = allowed.iter().map(Value::to_string).collect();
                let fault = format!("{at} is {text:?}; it must be {}", words.join(" or "));
                faults.push((node.line, fault));
            }
        }
        Kind::Number(n) => {
            let bound = |key| rule.get(key).and_then(Value::as_i64);
            if bound("minimum").is_some_and(|m| *n < m) || bound("maximum").is_some_and(|m| *n > m)
            {
                faults.push((node.line, format!("{at} is {n}, which is out of range")));
            }
        }
        Kind::Bool(_) | Kind::Null => {}
    }
}

fn object(
    rule: &Value,
    entries: &[(String, Node)],
    line: usize,
    at: &str,
    faults: &mut Vec<(usize, String)>,
) {
    for key in rule.get("required").and_then(Value::as_array).into_iter().flatten() {
        let key = key.as_str().unwrap_or_default();
        if !entries.iter().any(|(k, _)| k == key) {
            faults.push((line, format!("{at} has no '{key}'")));
        }
    }
    let known = rule.get("properties").and_then(Value::as_object);
    let open = rule.get("additionalProperties").and_then(Value::as_bool).unwrap_or(true);
    for (key, value) in entries {
        match known.and_then(|k| k.get(key)) {
            Some(rule) => against(rule, value, &format!("{at}.{key}"), faults),
            None if !open => faults.push((value.line, unknown(at, key, known))),
            None => {}
        }
    }
}

fn unknown(at: &str, key: &str, known: Option<&serde_json::Map<String, Value>>) -> String {
    let near = known
        .into_iter()
        .flat_map(|k| k.keys())
        .map(|k| (strsim::jaro_winkler(k, key), k))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((_, near)) => format!("{at} has no key '{key}'; perhaps '{near}'"),
        None => format!("{at} has no key '{key}'"),
    }
}
