//! `tidegate routes pause|resume` and `tidegate upstreams pause|resume|reset`.

use serde_json::{Value, json};

use super::{
    client::{Admin, path_part},
    list::{routes_table, upstreams_table},
    table::print,
};

/// Does `verb` to a route, and shows it as it is then.
pub(super) async fn route(admin: &Admin, verb: &str, name: &str, json: bool) -> Result<(), String> {
    let route = switch(admin, "routes", verb, name).await?;
    match json {
        true => print(&format!("{route}\n")),
        false => print(&routes_table(&json!({ "routes": [route] }))),
    }
}

/// Does `verb` to an upstream, and shows it as it is then.
pub(super) async fn upstream(
    admin: &Admin,
    verb: &str,
    name: &str,
    json: bool,
) -> Result<(), String> {
    let upstream = switch(admin, "upstreams", verb, name).await?;
    match json {
        true => print(&format!("{upstream}\n")),
        false => print(&upstreams_table(&json!({ "upstreams": [upstream] }))),
    }
}

async fn switch(admin: &Admin, kind: &str, verb: &str, name: &str) -> Result<Value, String> {
    admin.post(&format!("/api/v1/{kind}/{}/{verb}", path_part(name)), None).await
}
