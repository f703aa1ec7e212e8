//! Routes a request to its page by its path.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::answer_cache::NoNewAnswer;
use super::auth::{Admission, Visitor};
use super::cached_page;
use super::context::RequestContext;
use super::dashboard::Dashboard;
use super::frame::Frame;
use super::query::{self, PageQuery, QueryError};
use super::view::links;
use super::view::{api, export, keys, login, notice, review};
use super::{live, respond};
use crate::anomaly::AnomalyId;
use crate::http::{Request, Response};

/// Answers any request to the dashboard.
pub(crate) fn answer(dashboard: &Dashboard, mut request: Request) -> Response {
    let site = &dashboard.site;
    // If the path does not start with the base path, the proxy has already removed it.
    if let Some(inside) = site.base.inside(&request.path) {
        request.path = inside.to_owned();
    }
    let request = &request;
    let answer = match site.assets.find(&request.path) {
        Some(asset) => asset,
        None if request.path.is_empty() => respond::see_other(site, &format!("/{}", login::query(request))),
        None if request.path == "/robots.txt" => Response::text(200, "User-agent: *\nDisallow: /\n"),
        None => enter(dashboard, request),
    };
    respond::packed(respond::guarded(answer, site.is_tls_only && site.auth.is_encrypted(request)), request)
}

fn enter(dashboard: &Dashboard, request: &Request) -> Response {
    let site = &dashboard.site;
    let anonymous = || RequestContext {
        site,
        request,
        visitor: Visitor { name: String::new(), is_operator: false, can_leave: false },
    };
    let is_data = request.path.starts_with("/api/") || request.path == "/events";
    let verdict = site.auth.admit(request);
    if site.auth.has_login() && !matches!(verdict, Admission::Refuse(..)) {
        match (request.path.as_str(), &request.method) {
            ("/login", &Method::POST) => return login::enter(&anonymous()),
            ("/login", _) => return login::show(&anonymous()),
            ("/logout", &Method::POST) => return login::leave(&anonymous()),
            _ => {}
        }
    }
    match verdict {
        Admission::Enter(visitor) => find(dashboard, &RequestContext { site, request, visitor }),
        Admission::Ask if is_data => respond::json(
            401,
            &serde_json::json!({ "error": format!("log in first, at {}", site.base.link("/login")) }),
        ),
        Admission::Ask => login::ask(site, request),
        Admission::Refuse(status, why) if is_data => respond::json(status, &serde_json::json!({ "error": why })),
        Admission::Refuse(status, why) => {
            notice::page(site, status, &Frame::still(&anonymous(), "Not allowed"), why, "")
        }
    }
}

fn find(dashboard: &Dashboard, context: &RequestContext<'_>) -> Response {
    // The path is split before it is decoded, because a name may contain a slash.
    let mut parts = Vec::new();
    for part in context.request.path.trim_start_matches('/').split('/') {
        match percent_decode_str(part).decode_utf8() {
            Ok(part) => parts.push(part.into_owned()),
            Err(_) => return unknown(context),
        }
    }
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    if context.request.method == Method::POST {
        return match parts.as_slice() {
            ["anomalies", topic, partition, offset, index, kind, "reviews"] => {
                match links::anomaly_id([topic, partition, offset, index, kind]) {
                    Some(id) => {
                        let response = review::add(context, &id);
                        dashboard.pages.explain.cache().forget(&id);
                        response
                    }
                    None => unknown(context),
                }
            }
            _ => unknown(context),
        };
    }
    match parts.as_slice() {
        ["keys"] => match PageQuery::read(&context.request.query, query::PLAIN) {
            Ok(query) => keys::show(context, &query),
            Err(error) => cached_page::misread(context, &error),
        },
        ["events"] => match PageQuery::read(&context.request.query, query::STREAM) {
            Ok(query) => live::stream(&dashboard.hub, context, &query),
            Err(misread) => misread_json(&misread),
        },
        ["api", "openapi.json"] => api::description(context.site),
        ["api", "v1", name @ ("anomalies" | "anomalies.csv" | "anomalies.jsonl")] => {
            match (PageQuery::read(&context.request.query, query::API), *name) {
                (Err(misread), _) => misread_json(&misread),
                (Ok(query), "anomalies") => api(dashboard, &query),
                (Ok(query), "anomalies.csv") => export::answer(context, &query, export::ExportFormat::Csv),
                (Ok(query), _) => export::answer(context, &query, export::ExportFormat::JsonLines),
            }
        }
        ["api", ..] => {
            let known = "there is no such address; known: /api/v1/anomalies, .csv, .jsonl, and /api/openapi.json";
            respond::json(404, &serde_json::json!({ "error": known }))
        }
        // This is the first anomaly of a record, for users who know only the position in Kafka.
        ["anomalies", topic, partition, offset] => match links::anomaly_id([topic, partition, offset, "0", "point"]) {
            Some(id) => respond::see_other(context.site, &links::anomaly_url(&first(context, id))),
            None => unknown(context),
        },
        path => dashboard.pages.answer(context, path).unwrap_or_else(|| unknown(context)),
    }
}

/// Returns the first anomaly of the record of `id`, or `id` itself if there is none or no answer.
fn first(context: &RequestContext<'_>, id: AnomalyId) -> AnomalyId {
    let found = context.site.archive.at(&id.source.topic, id.source.partition, id.source.offset);
    found.ok().and_then(|records| records.first().map(|record| record.anomaly.id())).unwrap_or(id)
}

/// Answers a request whose path does not exist.
pub(crate) fn unknown(context: &RequestContext<'_>) -> Response {
    let frame = Frame::still(context, "Not found");
    notice::page(context.site, 404, &frame, "There is no such page.", "This dashboard has no page with this URL.")
}

fn misread_json(misread: &QueryError) -> Response {
    respond::json(400, &serde_json::json!({ "error": misread.message, "parameter": misread.parameter }))
}

/// Answers `/api/v1/anomalies`. In an outage it answers with an error, since a program would take old data for new.
fn api(dashboard: &Dashboard, query: &PageQuery) -> Response {
    let got = dashboard.pages.list.get(&dashboard.site, query);
    match (got.answer, got.why) {
        (Some((data, _)), None) => respond::json(200, &api::ApiDocument::of(&data)),
        (_, why) => notice::json_away(&why.unwrap_or(NoNewAnswer::Slow)),
    }
}
