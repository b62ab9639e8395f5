//! `/docs`: a document as one page, rendered here, for a browser without
//! scripts and without any other host. Everything in it is escaped, the style
//! is the only thing that the page may use, and it is named by its digest
//! (CSP Level 3 §6.7.2.2).

use super::examples::{of, resolved};
use axum::http::{HeaderValue, header};
use axum::response::{Html, IntoResponse as _, Response};
use base64::Engine as _;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::OnceLock;

/// What all refusals look like.
const PROBLEM: &str = "#/components/responses/Problem";

const STYLE: &str = include_str!("page.css");

/// Text between tags or in a quoted attribute.
struct Esc<'a>(&'a str);

impl fmt::Display for Esc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// A sentence; what stands between backquotes is code.
struct Prose<'a>(&'a str);

impl fmt::Display for Prose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<&str> = self.0.split('`').collect();
        for (n, part) in parts.iter().enumerate() {
            match n % 2 == 1 && n + 1 < parts.len() {
                true => write!(f, "<code>{}</code>", Esc(part))?,
                false => write!(f, "{}", Esc(part))?,
            }
        }
        Ok(())
    }
}

/// The page with the headers that hold it to what it is.
pub fn response(page: &'static str) -> Response {
    static POLICY: OnceLock<Option<HeaderValue>> = OnceLock::new();
    let policy = POLICY.get_or_init(|| {
        let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(STYLE));
        let text = format!(
            "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'"
        );
        HeaderValue::from_str(&text).ok()
    });
    let mut r = Html(page).into_response();
    let headers = r.headers_mut();
    if let Some(p) = policy {
        headers.insert(header::CONTENT_SECURITY_POLICY, p.clone());
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    r
}

/// One operation.
struct Call<'a> {
    method: &'a str,
    path: &'a str,
    o: &'a Value,
}

fn str_of<'a>(v: &'a Value, key: &str) -> &'a str {
    v.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The page of a document.
pub fn html(json: &str) -> String {
    let doc: Value = serde_json::from_str(json).unwrap_or_default();
    let mut by_tag: BTreeMap<&str, Vec<Call<'_>>> = BTreeMap::new();
    for (path, item) in doc["paths"].as_object().into_iter().flatten() {
        for (method, o) in item.as_object().into_iter().flatten() {
            let tag = o.pointer("/tags/0").and_then(Value::as_str).unwrap_or("other");
            by_tag.entry(tag).or_default().push(Call { method, path, o });
        }
    }
    let mut out = String::with_capacity(256 << 10);
    // Writing to a String cannot fail.
    let _ = page(&mut out, &doc, &by_tag);
    out
}

fn page(out: &mut String, doc: &Value, by_tag: &BTreeMap<&str, Vec<Call<'_>>>) -> fmt::Result {
    let info = &doc["info"];
    let title = Esc(str_of(info, "title"));
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\">\
         <title>{title}: API</title><style>{STYLE}</style></head>\n<body>\
         <a class=\"skip\" href=\"#calls\">To the calls</a>\
         <header><h1>{title}</h1><p>{}</p>\
         <p>Version {}. As a document: <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI {}). \
         Where a token is needed: <code>Authorization: Bearer …</code>, made with \
         <code>provision tokens add</code>.</p></header>\n",
        Prose(str_of(info, "description")),
        Esc(str_of(info, "version")),
        Esc(str_of(doc, "openapi")),
    )?;
    out.push_str("<nav aria-label=\"Calls\">");
    for (tag, calls) in by_tag {
        write!(out, "<h2><a href=\"#tag-{0}\">{0}</a></h2><ul>", Esc(tag))?;
        for c in calls {
            write!(
                out,
                "<li><a href=\"#{}\"><b class=\"{m}\">{m}</b> {}</a></li>",
                Esc(str_of(c.o, "operationId")),
                Esc(c.path),
                m = Esc(c.method),
            )?;
        }
        out.push_str("</ul>");
    }
    out.push_str("<h2><a href=\"#types\">types</a></h2></nav>\n<main id=\"calls\">\n");
    let about = |tag: &str| {
        let all = doc["tags"].as_array();
        all.and_then(|a| a.iter().find(|t| t["name"] == tag))
            .map_or("", |t| str_of(t, "description"))
    };
    for (tag, calls) in by_tag {
        write!(out, "<section id=\"tag-{0}\"><h2>{0}</h2>", Esc(tag))?;
        if !about(tag).is_empty() {
            write!(out, "<p>{}</p>", Esc(about(tag)))?;
        }
        for c in calls {
            call(out, doc, c)?;
        }
        out.push_str("</section>\n");
    }
    out.push_str("<section id=\"types\"><h2>Types</h2>");
    for (name, s) in doc["components"]["schemas"].as_object().into_iter().flatten() {
        write!(out, "<article id=\"type-{0}\"><h3><code>{0}</code></h3>", Esc(name))?;
        schema(out, doc, s)?;
        out.push_str("</article>\n");
    }
    out.push_str("</section></main></body></html>\n");
    Ok(())
}

fn call(out: &mut String, doc: &Value, c: &Call<'_>) -> fmt::Result {
    write!(
        out,
        "<article id=\"{}\"><h3><b class=\"{m}\">{m}</b> <code>{}</code></h3><p>{}</p>",
        Esc(str_of(c.o, "operationId")),
        Esc(c.path),
        Prose(str_of(c.o, "summary")),
        m = Esc(c.method),
    )?;
    if !str_of(c.o, "description").is_empty() {
        write!(out, "<p>{}</p>", Prose(str_of(c.o, "description")))?;
    }
    let parameters: Vec<&Value> = c.o["parameters"].as_array().into_iter().flatten().collect();
    if !parameters.is_empty() {
        out.push_str("<h4>Parameters</h4><table><tr><th>Name<th>In<th>Type<th>Meaning</tr>");
        for p in parameters {
            let must = if p["required"] == true { " <em>required</em>" } else { "" };
            write!(
                out,
                "<tr><td><code>{}</code>{must}<td>{}<td>{}<td>{}</tr>",
                Esc(str_of(p, "name")),
                Esc(str_of(p, "in")),
                Type(&p["schema"]),
                Prose(str_of(p, "description")),
            )?;
        }
        out.push_str("</table>");
    }
    for (kind, media) in c.o["requestBody"]["content"].as_object().into_iter().flatten() {
        write!(out, "<h4>Body, <code>{}</code></h4>", Esc(kind))?;
        let s = resolved(doc, &media["schema"]);
        schema(out, doc, s)?;
        json(out, "Example", media.get("example"))?;
    }
    out.push_str("<h4>Answers</h4><table><tr><th>Status<th>Meaning<th>Body</tr>");
    let (mut shown, mut refused) = (None, Vec::new());
    for (status, r) in c.o["responses"].as_object().into_iter().flatten() {
        if r["$ref"] == PROBLEM {
            refused.push(if status == "default" { "others" } else { status });
            continue;
        }
        let r = resolved(doc, r);
        write!(out, "<tr><td>{}<td>{}<td>", Esc(status), Prose(str_of(r, "description")))?;
        for (n, (kind, media)) in r["content"].as_object().into_iter().flatten().enumerate() {
            let or = if n > 0 { ", or " } else { "" };
            write!(out, "{or}{} <small>{}</small>", Type(&media["schema"]), Esc(kind))?;
            if status.starts_with('2') {
                shown = shown.or(media.get("example"));
            }
        }
        out.push_str("</tr>");
    }
    if !refused.is_empty() {
        let r = doc.pointer(PROBLEM.trim_start_matches('#')).unwrap_or(&Value::Null);
        let body = &r["content"]["application/problem+json"]["schema"];
        let (all, what) = (refused.join(", "), str_of(r, "description"));
        write!(out, "<tr><td>{}<td>{}<td>{}</tr>", Esc(&all), Prose(what), Type(body))?;
    }
    out.push_str("</table>");
    json(out, "Example of an answer", shown)?;
    writeln!(out, "<h4>With curl</h4><pre><code>{}</code></pre></article>", Esc(&curl(doc, c)))
}

fn json(out: &mut String, title: &str, v: Option<&Value>) -> fmt::Result {
    let Some(text) = v.and_then(|v| serde_json::to_string_pretty(v).ok()) else { return Ok(()) };
    write!(
        out,
        "<details><summary>{}</summary><pre><code>{}</code></pre></details>",
        Esc(title),
        Esc(&text)
    )
}

/// A line for a shell; `$SERVER` and `$TOKEN` are the reader's.
fn curl(doc: &Value, c: &Call<'_>) -> String {
    let mut path = c.path.to_owned();
    for p in c.o["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "path") {
        let example = p.get("example").cloned().or_else(|| of(doc, &p["schema"]));
        let text = example.as_ref().and_then(Value::as_str).unwrap_or("NAME");
        path = path.replace(&format!("{{{}}}", str_of(p, "name")), text);
    }
    let mut line = "curl --fail-with-body".to_owned();
    if c.method != "get" {
        line.push_str(&format!(" -X {}", c.method.to_ascii_uppercase()));
    }
    let open = c.o["security"]
        .as_array()
        .is_some_and(|s| s.iter().all(|r| *r == Value::Object(Default::default())));
    if !open {
        line.push_str(" -H \"Authorization: Bearer $TOKEN\"");
    }
    let body = c.o["requestBody"]["content"].as_object().and_then(|o| o.iter().next());
    match body {
        Some((kind, media)) if kind.ends_with("json") => {
            let text = media.get("example").map(Value::to_string).unwrap_or_default();
            let text = text.replace('\'', "'\\''");
            line.push_str(&format!(" \\\n  -H 'Content-Type: {kind}' -d '{text}'"));
        }
        Some((kind, _)) => {
            line.push_str(&format!(" \\\n  -H 'Content-Type: {kind}' --data-binary @FILE"));
        }
        None => {}
    }
    format!("{line} \\\n  \"$SERVER{path}\"")
}

/// A type in a word, with a link where it has a name.
struct Type<'a>(&'a Value);

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        if let Some(name) = s["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
            return write!(f, "<a href=\"#type-{0}\">{0}</a>", Esc(name));
        }
        for key in ["oneOf", "anyOf", "allOf"] {
            if let Some(all) = s[key].as_array() {
                let word = if key == "allOf" { " and " } else { " or " };
                for (n, one) in all.iter().enumerate() {
                    write!(f, "{}{}", if n > 0 { word } else { "" }, Type(one))?;
                }
                return Ok(());
            }
        }
        if let Some(all) = s["enum"].as_array() {
            for (n, one) in all.iter().enumerate() {
                let text = one.as_str().map_or_else(|| one.to_string(), str::to_owned);
                write!(f, "{}<code>{}</code>", if n > 0 { " " } else { "" }, Esc(&text))?;
            }
            return Ok(());
        }
        let kinds: Vec<&str> = match &s["type"] {
            Value::String(t) => vec![t],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => vec!["anything"],
        };
        write!(f, "{}", Esc(&kinds.join(" or ")))?;
        if let Some(format) = s["format"].as_str() {
            write!(f, " <small>{}</small>", Esc(format))?;
        }
        for (key, text) in [
            ("minimum", "at least"),
            ("maximum", "at most"),
            ("minLength", "at least as many characters as"),
            ("maxLength", "characters, at most"),
            ("minItems", "items, at least"),
            ("pattern", "as"),
        ] {
            if let Some(v) = s.get(key) {
                let v = v.as_str().map_or_else(|| v.to_string(), str::to_owned);
                write!(f, " <small>{text} <code>{}</code></small>", Esc(&v))?;
            }
        }
        match (kinds.contains(&"array"), s.get("items")) {
            (true, Some(items)) => write!(f, " of {}", Type(items)),
            _ => match s.get("additionalProperties").filter(|a| a.is_object()) {
                Some(values) => write!(f, ", each {}", Type(values)),
                None => Ok(()),
            },
        }
    }
}

/// The fields of an object, or its type in a word.
fn schema(out: &mut String, doc: &Value, s: &Value) -> fmt::Result {
    if !str_of(s, "description").is_empty() {
        write!(out, "<p>{}</p>", Prose(str_of(s, "description")))?;
    }
    if let Some(all) = s["allOf"].as_array() {
        return all.iter().try_for_each(|p| schema(out, doc, resolved(doc, p)));
    }
    let Some(fields) = s["properties"].as_object() else {
        return write!(out, "<p>{}</p>", Type(s));
    };
    let must: Vec<&str> =
        s["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    out.push_str("<table><tr><th>Field<th>Type<th>Meaning</tr>");
    for (name, f) in fields {
        let required = if must.contains(&name.as_str()) { " <em>required</em>" } else { "" };
        write!(
            out,
            "<tr><td><code>{}</code>{required}<td>{}<td>{}</tr>",
            Esc(name),
            Type(f),
            Prose(str_of(f, "description"))
        )?;
    }
    out.push_str("</table>");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_on_the_page_and_nothing_comes_from_elsewhere() {
        for json in [super::super::build::json(), crate::api::deployment::openapi::json()] {
            let page = html(json);
            let doc: Value = serde_json::from_str(json).unwrap();
            for (path, item) in doc["paths"].as_object().unwrap() {
                for o in item.as_object().unwrap().values() {
                    let id = o["operationId"].as_str().unwrap();
                    assert_eq!(
                        page.matches(&format!("<article id=\"{id}\">")).count(),
                        1,
                        "{path}"
                    );
                }
            }
            for from_elsewhere in
                ["<script", "src=", "url(", "@import", "<link", " style=", "onclick"]
            {
                assert!(!page.contains(from_elsewhere), "{from_elsewhere}");
            }
            // Each link within the page leads somewhere.
            for to in page.split("href=\"#").skip(1).map(|l| l.split('"').next().unwrap()) {
                assert!(page.contains(&format!("id=\"{to}\"")), "{to}");
            }
        }
    }

    #[test]
    fn what_is_in_a_document_cannot_become_markup() {
        let evil = "<img src=x onerror=alert(1)>\"'&";
        let doc = serde_json::json!({
            "openapi": evil, "info": { "title": evil, "description": evil, "version": evil },
            "paths": { evil: { evil: {
                "operationId": evil, "summary": evil, "description": evil, "tags": [evil],
                "parameters": [{ "name": evil, "in": evil, "description": evil,
                                 "schema": { "type": evil, "format": evil, "pattern": evil } }],
                "requestBody": { "content": { evil: { "example": evil,
                    "schema": { "properties": { evil: { "enum": [evil], "description": evil } } } } } },
                "responses": { evil: { "description": evil } },
            } } },
            "components": { "schemas": { evil: { "$ref": evil, "description": evil } } },
        });
        let page = html(&doc.to_string());
        assert!(!page.contains("<img"), "{page}");
        assert!(page.contains("&lt;img"));
    }

    #[test]
    fn the_policy_names_the_style_and_nothing_else() {
        let r = response("");
        let policy = r.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
