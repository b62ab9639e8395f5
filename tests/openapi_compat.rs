//! What a program was written against yesterday it finds today: the documents
//! of both servers are compared with those that are stored. Additions are
//! stored anew with `PROVISION_EXPECT=write`; what breaks a client fails, and
//! whoever means it says so by storing it, where a reviewer sees it.

mod openapi;

use openapi::breaks;
use serde_json::{Value, json};
use std::path::PathBuf;

fn documents() -> [(&'static str, Value); 2] {
    let read = |text: &str| serde_json::from_str(text).unwrap();
    [
        ("build", read(provision::api::openapi::build::json())),
        ("deployment", read(provision::api::deployment::openapi::json())),
    ]
}

#[test]
fn nothing_that_a_client_relies_on_has_changed() {
    let store = std::env::var("PROVISION_EXPECT").is_ok_and(|v| v == "write");
    let root: PathBuf = option_env!("CARGO_MANIFEST_DIR").unwrap_or(".").into();
    let (mut broken, mut differ) = (Vec::new(), Vec::new());
    for (name, now) in documents() {
        let path = root.join("tests/expected/openapi").join(format!("{name}.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&now).unwrap());
        if store {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
            continue;
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
        let then: Value = serde_json::from_str(&stored).unwrap();
        broken.extend(breaks(&then, &now).into_iter().map(|b| format!("{name}: {b}")));
        if stored != text {
            differ.push(path.display().to_string());
        }
    }
    let help = "PROVISION_EXPECT=write cargo test --test openapi_compat stores them anew";
    assert!(
        broken.is_empty(),
        "this breaks clients:\n{}\nif it is meant: {help}",
        broken.join("\n")
    );
    assert!(differ.is_empty(), "no client breaks, and the documents differ: {help}: {differ:#?}");
}

/// Changes the build server's document; what is said of it.
fn after(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let [(_, old), _] = documents();
    let mut new = old.clone();
    change(&mut new);
    assert_ne!(old, new, "the change changes nothing");
    breaks(&old, &new)
}

fn at<'a>(doc: &'a mut Value, pointer: &str) -> &'a mut Value {
    doc.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there"))
}

fn taken(doc: &mut Value, pointer: &str, key: &str) {
    at(doc, pointer).as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("no {key}"));
}

const NODES: &str = "/paths/~1v1~1nodes";
const SCHEMAS: &str = "/components/schemas";

#[test]
fn each_way_to_break_a_client_is_seen_and_named() {
    type Change = Box<dyn FnOnce(&mut Value)>;
    let schema = |name: &str, rest: &str| format!("{SCHEMAS}/{name}{rest}");
    let cases: Vec<(&str, Change)> = vec![
        (
            "GET /v1/nodes/{n}/explain: is gone",
            Box::new(|d| taken(d, "/paths", "/v1/nodes/{n}/explain")),
        ),
        (
            "DELETE /v1/nodes/{n}: is gone",
            Box::new(|d| taken(d, "/paths/~1v1~1nodes~1{n}", "delete")),
        ),
        ("POST /v1/nodes: no longer answers 201", {
            Box::new(|d| taken(d, &format!("{NODES}/post/responses"), "201"))
        }),
        (
            "/address: is gone",
            Box::new(move |d| taken(d, &schema("Node", "/properties"), "address")),
        ),
        ("/status/life: value \"failed\" is gone", {
            Box::new(move |d| {
                let all = at(d, &schema("LifeCycle", "/enum")).as_array_mut().unwrap();
                all.retain(|v| v != "failed");
            })
        }),
        ("POST /v1/nodes, body/rack: is required now", {
            Box::new(move |d| {
                at(d, &schema("NewNode", "/properties"))["rack"] = json!({ "type": "string" });
                at(d, &schema("NewNode", "/required")).as_array_mut().unwrap().push("rack".into());
            })
        }),
        ("POST /v1/nodes, body/labels: is gone", {
            Box::new(move |d| taken(d, &schema("NewNode", "/properties"), "labels"))
        }),
        ("GET /v1/nodes: needs a parameter rack now", {
            Box::new(|d| {
                let p = json!({ "name": "rack", "in": "query", "required": true, "schema": {} });
                at(d, &format!("{NODES}/get/parameters")).as_array_mut().unwrap().push(p);
            })
        }),
        ("GET /v1/nodes: parameter state is gone", {
            Box::new(|d| {
                let all = at(d, &format!("{NODES}/get/parameters")).as_array_mut().unwrap();
                all.retain(|p| p["name"] != "state");
            })
        }),
        ("GET /v1/nodes, parameter limit: maximum is 10 now", {
            Box::new(|d| {
                let all = at(d, &format!("{NODES}/get/parameters")).as_array_mut().unwrap();
                all.iter_mut().find(|p| p["name"] == "limit").unwrap()["schema"]["maximum"] =
                    json!(10);
            })
        }),
        ("/spare: was of type {\"boolean\"} and is of type {\"string\"}", {
            Box::new(move |d| *at(d, &schema("Node", "/properties/spare/type")) = json!("string"))
        }),
        ("/macs: may be missing now", {
            Box::new(move |d| {
                let all = at(d, &schema("Node", "/required")).as_array_mut().unwrap();
                all.retain(|v| v != "macs");
            })
        }),
    ];
    for (said, change) in cases {
        let found = after(change);
        assert!(found.iter().any(|f| f.ends_with(said)), "{said}\nnot in {found:#?}");
    }
}

#[test]
fn an_addition_breaks_nobody() {
    for change in [
        (|d| at(d, "/paths")["/v1/racks"] = json!({ "get": { "operationId": "getV1Racks" } }))
            as fn(&mut Value),
        |d| at(d, &format!("{SCHEMAS}/Node/properties"))["rack"] = json!({ "type": "string" }),
        |d| at(d, &format!("{SCHEMAS}/NewNode/properties"))["rack"] = json!({ "type": "string" }),
        |d| {
            let p = json!({ "name": "rack", "in": "query", "schema": { "type": "string" } });
            at(d, &format!("{NODES}/get/parameters")).as_array_mut().unwrap().push(p);
        },
        |d| at(d, &format!("{SCHEMAS}/Role/enum")).as_array_mut().unwrap().push("guest".into()),
    ] {
        let found = after(change);
        assert!(found.is_empty(), "{found:#?}");
    }
}
