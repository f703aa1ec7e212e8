//! From a request's path and query to its page.

use hyper::Method;
use percent_encoding::percent_decode_str;

use super::answer_cache::{CachedAnswer, NoNewAnswer};
use super::auth::{Admission, Visitor};
use super::http::{Request, Response};
use super::query::{self, PageQuery, QueryError};
use super::site::Site;
use super::view::{
    Frame, api, dead_letters, detection, device, devices, explain, export, list, login, notice, overview, review,
};
use super::{live, respond};

/// Someone who is in, and what they ask.
pub struct RequestContext<'a> {
    /// Where.
    pub site: &'a Site,
    /// What.
    pub request: &'a Request,
    /// Who.
    pub visitor: Visitor,
}

/// Answers any request.
pub fn answer(site: &Site, mut request: Request) -> Response {
    // A path that does not begin with the base is one from which the proxy has removed it.
    if let Some(inside) = site.base.inside(&request.path) {
        request.path = inside.to_owned();
    }
    let request = &request;
    let answer = match site.assets.find(&request.path) {
        Some(asset) => asset,
        None if request.path.is_empty() => respond::see_other(site, &format!("/{}", login::query(request))),
        None if request.path == "/robots.txt" => Response::text(200, "User-agent: *\nDisallow: /\n"),
        None => enter(site, request),
    };
    respond::packed(respond::guarded(answer, site.is_tls_only && site.door.is_encrypted(request)), request)
}

fn enter(site: &Site, request: &Request) -> Response {
    let nobody = || RequestContext {
        site,
        request,
        visitor: Visitor { name: String::new(), is_operator: false, can_leave: false },
    };
    let is_data = request.path.starts_with("/api/") || request.path == "/events";
    let verdict = site.door.look(request);
    if site.door.has_login() && !matches!(verdict, Admission::Refuse(..)) {
        match (request.path.as_str(), &request.method) {
            ("/login", &Method::POST) => return login::enter(&nobody()),
            ("/login", _) => return login::show(&nobody()),
            ("/logout", &Method::POST) => return login::leave(&nobody()),
            _ => {}
        }
    }
    match verdict {
        Admission::Enter(visitor) => find(&RequestContext { site, request, visitor }),
        Admission::Ask if is_data => respond::json(
            401,
            &serde_json::json!({ "error": format!("log in first, at {}", site.base.link("/login")) }),
        ),
        Admission::Ask => login::ask(site, request),
        Admission::Refuse(status, why) if is_data => respond::json(status, &serde_json::json!({ "error": why })),
        Admission::Refuse(status, why) => {
            respond::notice(site, status, &Frame::still(&nobody(), "Not allowed"), why, "")
        }
    }
}

fn find(visit: &RequestContext<'_>) -> Response {
    // Split before decoding: a name may hold a slash.
    let mut parts = Vec::new();
    for part in visit.request.path.trim_start_matches('/').split('/') {
        match percent_decode_str(part).decode_utf8() {
            Ok(part) => parts.push(part.into_owned()),
            Err(_) => return unknown(visit),
        }
    }
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    if visit.request.method == Method::POST {
        return match parts.as_slice() {
            ["anomalies", topic, partition, offset, "marks"] => {
                match explain::AnomalyId::read(topic, partition, offset) {
                    Some(place) => review::make(visit, &place),
                    None => unknown(visit),
                }
            }
            _ => unknown(visit),
        };
    }
    match parts.as_slice() {
        [""] => overview_page(visit),
        ["anomalies"] => list_page(visit),
        ["anomalies", topic, partition, offset] => match explain::AnomalyId::read(topic, partition, offset) {
            Some(place) => explain_page(visit, &place),
            None => unknown(visit),
        },
        ["devices"] => devices_page(visit),
        ["devices", device] => match query::named(device) {
            Ok(device) => device_page(visit, device::Name { device, metric: None }),
            Err(_) => unknown(visit),
        },
        ["devices", device, metric] => match (query::named(device), query::named(metric)) {
            (Ok(device), Ok(metric)) => device_page(visit, device::Name { device, metric: Some(metric) }),
            _ => unknown(visit),
        },
        ["detection"] => detection_page(visit),
        ["dead-letters"] => dead_letters_page(visit),
        ["keys"] => keys_page(visit),
        ["events"] => match PageQuery::read(&visit.request.query, query::STREAM) {
            Ok(asked) => live::stream(visit, &asked),
            Err(misread) => misread_json(&misread),
        },
        ["api", "openapi.json"] => api::description(visit.site),
        ["api", "v1", name @ ("anomalies" | "anomalies.csv" | "anomalies.jsonl")] => {
            match (PageQuery::read(&visit.request.query, query::API), *name) {
                (Err(misread), _) => misread_json(&misread),
                (Ok(asked), "anomalies") => api(visit, &asked),
                (Ok(asked), "anomalies.csv") => export::answer(visit, &asked, export::ExportFormat::Csv),
                (Ok(asked), _) => export::answer(visit, &asked, export::ExportFormat::JsonLines),
            }
        }
        ["api", ..] => {
            let known = "there is no such address; known: /api/v1/anomalies, .csv, .jsonl, and /api/openapi.json";
            respond::json(404, &serde_json::json!({ "error": known }))
        }
        _ => unknown(visit),
    }
}

/// There is nothing at this address.
pub fn unknown(visit: &RequestContext<'_>) -> Response {
    let frame = Frame::still(visit, "Not found");
    respond::notice(visit.site, 404, &frame, "There is no such page.", "The address is not one of this dashboard's.")
}

fn misread(visit: &RequestContext<'_>, misread: &QueryError) -> Response {
    let frame = Frame::still(visit, "Not understood");
    let message = super::view::text::shown(&misread.message);
    respond::notice(visit.site, 400, &frame, "The address is not understood.", &message)
}

fn misread_json(misread: &QueryError) -> Response {
    respond::json(400, &serde_json::json!({ "error": misread.message, "parameter": misread.parameter }))
}

/// Reads the query, or answers 400.
macro_rules! read {
    ($visit:expr, $known:expr) => {
        match PageQuery::read(&$visit.request.query, $known) {
            Ok(asked) => asked,
            Err(error) => return misread($visit, &error),
        }
    };
}

/// New data as its page; old data as its page below the reason; no data as the reason alone.
fn shown<'a, V>(
    visit: &RequestContext<'a>,
    frame: Frame<'a>,
    got: CachedAnswer<V>,
    show: impl FnOnce(&V, Frame<'a>, crate::event::Timestamp) -> Response,
) -> Response {
    let site = visit.site;
    // The first answer tells how far this clock is from that of the database.
    let now = site.now();
    let frame = Frame { clock: super::view::format::clock(now), made: now.to_string(), ..frame };
    match (got.answer, got.why) {
        (Some((data, taken)), None) => show(&data, frame, taken),
        (Some((data, taken)), Some(why)) => {
            let banner = notice::outage(&why, Some(taken), site.now());
            respond::stale(show(&data, Frame { banner: Some(banner), is_late: true, ..frame }, taken))
        }
        (None, why) => respond::nothing(site, frame, &why.unwrap_or(NoNewAnswer::Slow)),
    }
}

fn overview_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::RANGE);
    let frame = Frame::live(visit, "Overview", "overview", "/", &asked);
    let got = visit.site.ask(&visit.site.overview, &asked.still(), overview::look);
    shown(visit, frame, got, |data, frame, taken| overview::show(visit.site, frame, &asked, data, taken))
}

fn list_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::LIST);
    let frame = Frame::live(visit, "Anomalies", "anomalies", "/anomalies", &asked);
    let got = visit.site.ask(&visit.site.list, &asked.still(), list::look);
    shown(visit, frame, got, |data, frame, _| list::show(visit.site, frame, &asked, data))
}

fn devices_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::RANGE);
    let frame = Frame::live(visit, "Devices", "devices", "/devices", &asked);
    let got = visit.site.ask(&visit.site.devices, &asked.still(), devices::look);
    shown(visit, frame, got, |data, frame, _| devices::show(visit.site, frame, &asked, data))
}

fn device_page(visit: &RequestContext<'_>, name: device::Name) -> Response {
    let asked = read!(visit, query::RANGE);
    let frame = Frame::live(visit, &name.title(), "devices", &name.url(), &asked);
    let key = (name, asked.still());
    let got = visit.site.ask(&visit.site.device, &key, device::look);
    shown(visit, frame, got, |data, frame, taken| {
        if data.is_unknown() {
            let frame = Frame { refresh: 0, ..frame };
            let text = "No event of a device with exactly this name has come so far. One that has just begun to send is known \
                        here after some seconds; of very many devices, after some minutes.";
            return respond::notice(visit.site, 404, &frame, "There is no such device.", text);
        }
        device::show(visit.site, frame, &key.0, &asked, data, taken)
    })
}

fn detection_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::RANGE);
    let frame = Frame::live(visit, "Detection", "detection", "/detection", &asked);
    let got = visit.site.ask(&visit.site.detection, &asked.still(), detection::look);
    shown(visit, frame, got, |data, frame, taken| detection::show(visit.site, frame, &asked, data, taken))
}

fn dead_letters_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::SPAN);
    let frame = Frame::live(visit, "Rejected records", "detection", "/dead-letters", &asked);
    let got = visit.site.ask(&visit.site.dead_letters, &asked.still(), dead_letters::look);
    shown(visit, frame, got, |data, frame, _| dead_letters::show(visit.site, frame, &asked, data))
}

fn keys_page(visit: &RequestContext<'_>) -> Response {
    let asked = read!(visit, query::PLAIN);
    let frame = Frame { refresh: 0, toggle: String::new(), ..Frame::live(visit, "Keys", "", "/keys", &asked) };
    respond::html(visit.site, 200, "keys.html", &frame, &())
}

fn explain_page(visit: &RequestContext<'_>, place: &explain::AnomalyId) -> Response {
    let asked = read!(visit, query::PLAIN);
    let path = place.url();
    let frame = Frame::live(visit, "Anomaly", "anomalies", &path, &asked);
    let got = visit.site.ask(&visit.site.explain, place, explain::look);
    shown(visit, frame, got, |data, frame, _| match data {
        Some(data) => explain::show(visit.site, frame, data),
        None => {
            let frame = Frame { refresh: 0, ..frame };
            let text = "No anomaly is recorded for this record; it may be older than what is kept.";
            respond::notice(visit.site, 404, &frame, "There is no such anomaly.", text)
        }
    })
}

/// Never old data: programs would take it for new.
fn api(visit: &RequestContext<'_>, asked: &PageQuery) -> Response {
    let got = visit.site.ask(&visit.site.list, asked, list::look);
    match (got.answer, got.why) {
        (Some((data, _)), None) => respond::json(200, &api::ApiDocument::of(&data)),
        (_, why) => respond::json_away(&why.unwrap_or(NoNewAnswer::Slow)),
    }
}
