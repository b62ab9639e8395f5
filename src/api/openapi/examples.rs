//! Examples, so that each call shows what is sent and answered. A schema's own
//! example is taken, else one is put together from its parts: whoever adds a
//! field says at the field what it looks like, once, and every call that has
//! it shows it.

use serde_json::{Map, Value, json};

/// Schemas within schemas that are followed; deeper ones are left out.
const DEEPEST: usize = 12;

/// Gives every JSON body in the document an example, where it has none.
pub fn fill(doc: &mut Value) {
    let whole = doc.clone();
    each_json(doc, &mut |content| {
        if content.contains_key("example") || content.contains_key("examples") {
            return;
        }
        if let Some(e) = content.get("schema").and_then(|s| of(&whole, s)) {
            content.insert("example".into(), e);
        }
    });
}

/// Calls `f` with each media type object whose type is JSON.
fn each_json(v: &mut Value, f: &mut impl FnMut(&mut Map<String, Value>)) {
    match v {
        Value::Object(o) => {
            if let Some(Value::Object(content)) = o.get_mut("content") {
                for (kind, media) in content.iter_mut().filter(|(k, _)| k.ends_with("json")) {
                    if let (false, Some(media)) = (kind.is_empty(), media.as_object_mut()) {
                        f(media);
                    }
                }
            }
            o.values_mut().for_each(|v| each_json(v, f));
        }
        Value::Array(a) => a.iter_mut().for_each(|v| each_json(v, f)),
        _ => {}
    }
}

/// An example of what fits `schema`; `None` where it says nothing.
pub fn of(doc: &Value, schema: &Value) -> Option<Value> {
    example(doc, schema, 0)
}

/// What a reference leads to.
pub fn resolved<'a>(doc: &'a Value, v: &'a Value) -> &'a Value {
    let to = v.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix('#'));
    to.and_then(|t| doc.pointer(t)).unwrap_or(v)
}

fn example(doc: &Value, schema: &Value, depth: usize) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    let s = resolved(doc, schema);
    if let Some(e) = s.get("example").or_else(|| s.get("examples")?.get(0)) {
        return Some(e.clone());
    }
    let first = |key: &str| s.get(key).and_then(Value::as_array).and_then(|a| a.first());
    if let Some(one) = s.get("const").or_else(|| first("enum")) {
        return Some(one.clone());
    }
    if let Some(all) = s.get("allOf").and_then(Value::as_array) {
        let mut joined = Map::new();
        for part in all {
            if let Some(Value::Object(o)) = example(doc, part, depth + 1) {
                joined.extend(o);
            }
        }
        return Some(Value::Object(joined));
    }
    for key in ["oneOf", "anyOf"] {
        let all = s.get(key).and_then(Value::as_array);
        let is_null = |v: &&Value| v.get("type").is_some_and(|t| t == "null");
        if let Some(one) = all.and_then(|a| a.iter().find(|v| !is_null(v))) {
            return example(doc, one, depth + 1);
        }
    }
    match kind(s)? {
        "object" => Some(object(doc, s, depth)),
        "array" => {
            let item = s.get("items").and_then(|i| example(doc, i, depth + 1));
            Some(Value::Array(item.into_iter().collect()))
        }
        "string" => Some(json!(match s.get("format").and_then(Value::as_str) {
            Some("date-time") => "2026-11-21T09:00:00Z",
            Some("ipv4") => "10.1.0.11",
            Some("binary") => return None,
            _ => "text",
        })),
        "integer" => Some(s.get("minimum").cloned().unwrap_or(json!(0))),
        "number" => Some(json!(1.5)),
        "boolean" => Some(json!(false)),
        _ => Some(Value::Null),
    }
}

/// The first type that is not null.
fn kind(s: &Value) -> Option<&str> {
    match s.get("type")? {
        Value::String(t) => Some(t),
        Value::Array(all) => all.iter().filter_map(Value::as_str).find(|t| *t != "null"),
        _ => None,
    }
}

fn object(doc: &Value, s: &Value, depth: usize) -> Value {
    let mut out = Map::new();
    if let Some(all) = s.get("properties").and_then(Value::as_object) {
        for (name, p) in all {
            if let Some(e) = example(doc, p, depth + 1) {
                out.insert(name.clone(), e);
            }
        }
        return Value::Object(out);
    }
    if let Some(values) = s.get("additionalProperties").filter(|v| v.is_object()) {
        let name = s.get("propertyNames").and_then(|n| example(doc, n, depth + 1));
        let name = name.as_ref().and_then(Value::as_str).unwrap_or("name");
        if let Some(e) = example(doc, values, depth + 1) {
            out.insert(name.to_owned(), e);
        }
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_is_put_together_from_the_parts_and_a_loop_ends() {
        let mut doc = json!({
            "paths": { "/x": { "get": { "responses": { "200": { "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Tree" } }
            } } } } } },
            "components": { "schemas": {
                "Name": { "type": "string", "example": "node01" },
                "Tree": { "type": "object", "properties": {
                    "name": { "$ref": "#/components/schemas/Name" },
                    "state": { "oneOf": [{ "type": "null" }, { "type": "string", "enum": ["on"] }] },
                    "at": { "type": ["string", "null"], "format": "date-time" },
                    "labels": { "type": "object", "additionalProperties": { "type": "integer" } },
                    "child": { "$ref": "#/components/schemas/Tree" },
                } },
            } },
        });
        fill(&mut doc);
        let e = &doc["paths"]["/x"]["get"]["responses"]["200"]["content"]["application/json"];
        let e = &e["example"];
        assert_eq!(e["name"], "node01");
        assert_eq!(e["state"], "on");
        assert_eq!(e["at"], "2026-11-21T09:00:00Z");
        assert_eq!(e["labels"]["name"], 0);
        assert_eq!(e["child"]["child"]["name"], "node01");
    }
}
