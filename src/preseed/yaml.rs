//! YAML as a tree that knows its lines: a message about a value must say where
//! it is. Anchors and tags are refused; no installer file needs them.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Deepest nesting that is read.
const DEEPEST: usize = 64;

/// What a node is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Map(Vec<(String, Node)>),
    List(Vec<Node>),
    Text(String),
    Number(i64),
    Bool(bool),
    Null,
}

/// A value and the line on which it begins, from 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub kind: Kind,
    pub line: usize,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// As JSON schemas name it.
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Map(_) => "object",
            Kind::List(_) => "array",
            Kind::Text(_) => "string",
            Kind::Number(_) => "integer",
            Kind::Bool(_) => "boolean",
            Kind::Null => "null",
        }
    }
}

/// One that is still open.
enum Open {
    Map(Vec<(String, Node)>, Option<String>, usize),
    List(Vec<Node>, usize),
}

/// Reads one document; an error has its line.
pub(super) fn parse(text: &str) -> Result<Node, (usize, String)> {
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| (e.marker().line(), e.info().to_owned()))?;
        let line = span.start.line();
        let done = match event {
            Event::Alias(_) => return Err((line, "aliases are not used here".to_owned())),
            Event::MappingStart(..) => {
                open.push(Open::Map(Vec::new(), None, line));
                None
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new(), line));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(|o| match o {
                Open::Map(entries, _, line) => Node { kind: Kind::Map(entries), line },
                Open::List(items, line) => Node { kind: Kind::List(items), line },
            }),
            Event::Scalar(text, style, ..) => Some(Node { kind: scalar(&text, style), line }),
            _ => None,
        };
        if open.len() > DEEPEST {
            return Err((line, format!("nested more than {DEEPEST} deep")));
        }
        let Some(node) = done else { continue };
        match open.last_mut() {
            None => return Ok(node),
            Some(Open::List(items, _)) => items.push(node),
            Some(Open::Map(entries, key, _)) => match (key.take(), node.kind) {
                (Some(key), kind) => entries.push((key, Node { kind, line: node.line })),
                (None, Kind::Text(name)) => {
                    if entries.iter().any(|(k, _)| *k == name) {
                        return Err((line, format!("'{name}' is there twice")));
                    }
                    *key = Some(name);
                }
                (None, _) => return Err((line, "a key is text".to_owned())),
            },
        }
    }
    Err((1, "there is nothing in it".to_owned()))
}

/// Plain scalars as the core schema resolves them (YAML 1.2 §10.3.2).
fn scalar(text: &str, style: ScalarStyle) -> Kind {
    if style != ScalarStyle::Plain {
        return Kind::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
        "true" | "True" | "TRUE" => Kind::Bool(true),
        "false" | "False" | "FALSE" => Kind::Bool(false),
        _ => text.parse().map_or_else(|_| Kind::Text(text.to_owned()), Kind::Number),
    }
}
