//! Two versions of an OpenAPI document compared, as a client written against
//! the first would see the second: what it can no longer send, and what it no
//! longer gets.

use serde_json::Value;
use std::collections::BTreeSet;

/// Which way a body goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Sent,
    Answered,
}

/// What breaks a client, a sentence each.
pub fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut c = Compared { old, new, found: Vec::new(), seen: BTreeSet::new() };
    for (path, item) in object(&old["paths"]) {
        for (method, o) in object(item) {
            let at = format!("{} {path}", method.to_uppercase());
            match new["paths"].get(path).and_then(|i| i.get(method)) {
                Some(n) => c.operation(&at, o, n),
                None => c.say(&at, "is gone"),
            }
        }
    }
    c.found
}

fn object(v: &Value) -> impl Iterator<Item = (&String, &Value)> {
    v.as_object().into_iter().flatten()
}

fn list(v: &Value) -> impl Iterator<Item = &Value> {
    v.as_array().into_iter().flatten()
}

fn words(v: &Value) -> BTreeSet<String> {
    match v {
        Value::String(s) => [s.clone()].into(),
        _ => list(v).map(|w| w.as_str().map_or_else(|| w.to_string(), str::to_owned)).collect(),
    }
}

struct Compared<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
    /// References that were compared, each way: types may hold themselves.
    seen: BTreeSet<(String, String, bool)>,
}

impl<'a> Compared<'a> {
    fn say(&mut self, at: &str, what: &str) {
        let line = format!("{at}: {what}");
        if !self.found.contains(&line) {
            self.found.push(line);
        }
    }

    fn operation(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        if old["operationId"] != new["operationId"] {
            self.say(at, "has another operationId");
        }
        self.parameters(at, old, new);
        let (ob, nb) =
            (resolve(self.old, &old["requestBody"]), resolve(self.new, &new["requestBody"]));
        if nb["required"] == true && ob["required"] != true {
            self.say(at, "needs a body now");
        }
        self.content(&format!("{at}, body"), ob, nb, Way::Sent);
        for (status, r) in object(&old["responses"]).filter(|(s, _)| s.starts_with('2')) {
            let r = resolve(self.old, r);
            match new["responses"].get(status) {
                Some(n) => {
                    let n = resolve(self.new, n);
                    self.content(&format!("{at}, answer {status}"), r, n, Way::Answered);
                }
                None => self.say(at, &format!("no longer answers {status}")),
            }
        }
    }

    fn parameters(&mut self, at: &str, old: &'a Value, new: &'a Value) {
        let same = |a: &Value, b: &Value| a["in"] == b["in"] && a["name"] == b["name"];
        let name = |p: &Value| p["name"].as_str().unwrap_or_default().to_owned();
        for o in list(&old["parameters"]) {
            let Some(n) = list(&new["parameters"]).find(|n| same(o, n)) else {
                self.say(at, &format!("parameter {} is gone", name(o)));
                continue;
            };
            if n["required"] == true && o["required"] != true {
                self.say(at, &format!("parameter {} is required now", name(o)));
            }
            let at = format!("{at}, parameter {}", name(o));
            self.schema(&at, &o["schema"], &n["schema"], Way::Sent);
        }
        for n in list(&new["parameters"]).filter(|n| n["required"] == true) {
            if !list(&old["parameters"]).any(|o| same(o, n)) {
                self.say(at, &format!("needs a parameter {} now", name(n)));
            }
        }
    }

    fn content(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        for (kind, media) in object(&old["content"]) {
            match new["content"].get(kind) {
                Some(n) => self.schema(at, &media["schema"], &n["schema"], way),
                None => self.say(at, &format!("is no longer {kind}")),
            }
        }
    }

    fn schema(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        if let (Some(a), Some(b)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.seen.insert((a.to_owned(), b.to_owned(), way == Way::Sent))
        {
            return;
        }
        let (old, new) = (resolve(self.old, old), resolve(self.new, new));
        let (ot, nt) = (kinds(self.old, old), kinds(self.new, new));
        let fits = match way {
            _ if ot.is_empty() || nt.is_empty() => ot.is_empty() == nt.is_empty(),
            Way::Sent => ot.is_subset(&nt),
            Way::Answered => nt.is_subset(&ot),
        };
        if !fits {
            self.say(at, &format!("was of type {ot:?} and is of type {nt:?}"));
        }
        if old.get("format") != new.get("format") {
            self.say(at, &format!("was {} and is {}", old["format"], new["format"]));
        }
        let values = words(&new["enum"]);
        for gone in words(&old["enum"]).difference(&values) {
            self.say(at, &format!("value {gone:?} is gone"));
        }
        if way == Way::Sent {
            if old.get("enum").is_none() && new.get("enum").is_some() {
                self.say(at, "takes certain values only now");
            }
            self.limits(at, old, new);
        }
        self.fields(at, old, new, way);
        for key in ["items", "additionalProperties"] {
            if old[key].is_object() && new[key].is_object() {
                self.schema(&format!("{at}/*"), &old[key], &new[key], way);
            }
        }
        self.variants(at, old, new, way);
    }

    fn limits(&mut self, at: &str, old: &Value, new: &Value) {
        for (key, is_tighter) in [
            ("minimum", (|o, n| n > o) as fn(f64, f64) -> bool),
            ("minLength", |o, n| n > o),
            ("minItems", |o, n| n > o),
            ("maximum", |o, n| n < o),
            ("maxLength", |o, n| n < o),
            ("maxItems", |o, n| n < o),
        ] {
            let Some(n) = new[key].as_f64() else { continue };
            if old[key].as_f64().is_none_or(|o| is_tighter(o, n)) {
                self.say(at, &format!("{key} is {n} now"));
            }
        }
        if new.get("pattern").is_some() && old.get("pattern") != new.get("pattern") {
            self.say(at, &format!("must look like {} now", new["pattern"]));
        }
    }

    fn fields(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let (of, nf) = (Fields::of(self.old, old), Fields::of(self.new, new));
        for (name, o) in &of.all {
            let at = format!("{at}/{name}");
            let Some(n) = nf.all.get(*name) else {
                if way == Way::Answered || nf.closed {
                    self.say(&at, "is gone");
                }
                continue;
            };
            match way {
                Way::Answered if of.required.contains(*name) && !nf.required.contains(*name) => {
                    self.say(&at, "may be missing now");
                }
                Way::Sent if nf.required.contains(*name) && !of.required.contains(*name) => {
                    self.say(&at, "is required now");
                }
                _ => {}
            }
            self.schema(&at, o, n, way);
        }
        for name in nf.required.iter().filter(|n| !of.all.contains_key(*n)) {
            if way == Way::Sent {
                self.say(&format!("{at}/{name}"), "is required now");
            }
        }
    }

    fn variants(&mut self, at: &str, old: &'a Value, new: &'a Value, way: Way) {
        let all = |v: &'a Value| -> Vec<&'a Value> {
            list(&v["oneOf"]).chain(list(&v["anyOf"])).filter(|s| s["type"] != "null").collect()
        };
        let (o, n) = (all(old), all(new));
        if n.len() < o.len() {
            self.say(at, "has fewer forms");
        }
        for (a, b) in o.iter().zip(&n) {
            self.schema(at, a, b, way);
        }
    }
}

fn resolve<'a>(doc: &'a Value, v: &'a Value) -> &'a Value {
    let to = v["$ref"].as_str().and_then(|r| doc.pointer(r.trim_start_matches('#')));
    to.unwrap_or(v)
}

/// Types, with those of the forms it may have.
fn kinds(doc: &Value, s: &Value) -> BTreeSet<String> {
    let mut all = words(&s["type"]);
    for form in list(&s["oneOf"]).chain(list(&s["anyOf"])).chain(list(&s["allOf"]).take(1)) {
        all.extend(kinds(doc, resolve(doc, form)));
    }
    all
}

/// Fields of an object, with those of the objects it is joined from.
struct Fields<'a> {
    all: std::collections::BTreeMap<&'a str, &'a Value>,
    required: BTreeSet<&'a str>,
    closed: bool,
}

impl<'a> Fields<'a> {
    fn of(doc: &'a Value, s: &'a Value) -> Self {
        let mut f = Self {
            all: object(&s["properties"]).map(|(k, v)| (k.as_str(), v)).collect(),
            required: list(&s["required"]).filter_map(Value::as_str).collect(),
            closed: s["additionalProperties"] == false,
        };
        for part in list(&s["allOf"]) {
            let p = Self::of(doc, resolve(doc, part));
            f.all.extend(p.all);
            f.required.extend(p.required);
            f.closed |= p.closed;
        }
        f
    }
}
