//! From a request's path and query to its page.

use percent_encoding::percent_decode_str;

use super::asked::{self, Asked, Misread};
use super::listener::{Request, Response};
use super::respond;
use super::shelf::Got;
use super::site::Site;
use super::view::{Frame, api, device, devices, explain, list, notice, overview};

/// Answers any request.
pub fn answer(site: &Site, request: &Request) -> Response {
    respond::guarded(find(site, request))
}

fn find(site: &Site, request: &Request) -> Response {
    if let Some(asset) = site.assets.find(&request.path) {
        return asset;
    }
    // Split before decoding: a name may hold a slash.
    let mut parts = Vec::new();
    for part in request.path.trim_start_matches('/').split('/') {
        match percent_decode_str(part).decode_utf8() {
            Ok(part) => parts.push(part.into_owned()),
            Err(_) => return unknown(site),
        }
    }
    let parts = parts.iter().map(String::as_str).collect::<Vec<_>>();
    let query = request.query.as_str();
    match parts.as_slice() {
        [""] => overview_page(site, request),
        ["anomalies"] => list_page(site, request),
        ["anomalies", topic, partition, offset] => match explain::Place::read(topic, partition, offset) {
            Some(place) => explain_page(site, request, &place),
            None => unknown(site),
        },
        ["devices"] => devices_page(site, request),
        ["devices", name] => match asked::named(name) {
            Ok(name) => device_page(site, request, name),
            Err(_) => unknown(site),
        },
        ["api", "anomalies"] => match Asked::read(query, asked::API) {
            Ok(asked) => api(site, &asked),
            Err(misread) => misread_json(&misread),
        },
        ["api", ..] => {
            respond::json(404, &serde_json::json!({ "error": "there is no such address; known: /api/anomalies" }))
        }
        _ => unknown(site),
    }
}

fn unknown(site: &Site) -> Response {
    let frame = Frame::still(site, "Not found");
    respond::notice(site, 404, &frame, "There is no such page.", "The address is not one of this dashboard's.")
}

fn misread(site: &Site, misread: &Misread) -> Response {
    let frame = Frame::still(site, "Not understood");
    respond::notice(site, 400, &frame, "The address is not understood.", &misread.message)
}

fn misread_json(misread: &Misread) -> Response {
    respond::json(400, &serde_json::json!({ "error": misread.message, "parameter": misread.parameter }))
}

/// Reads the query, or answers 400.
macro_rules! read {
    ($site:expr, $request:expr, $known:expr) => {
        match Asked::read(&$request.query, $known) {
            Ok(asked) => asked,
            Err(error) => return misread($site, &error),
        }
    };
}

/// The newest data there is: fresh, or old and marked, or none.
fn shown<V>(
    site: &Site,
    frame: Frame<'_>,
    got: Got<V>,
    page: impl FnOnce(&V, Frame<'_>, crate::event::Instant) -> Response,
) -> Response {
    match (got.answer, got.why) {
        (Some((data, taken)), None) => page(&data, frame, taken),
        (Some((data, taken)), Some(why)) => {
            let strip = notice::outage(&why, Some(taken), site.now());
            respond::stale(page(&data, Frame { strip: Some(strip), ..frame }, taken))
        }
        (None, Some(why)) => respond::nothing(site, frame, &why),
        (None, None) => respond::nothing(site, frame, &super::shelf::Why::Slow),
    }
}

fn overview_page(site: &Site, request: &Request) -> Response {
    let asked = read!(site, request, asked::OVERVIEW);
    let frame = Frame::live(site, "Overview", "overview", "/", &asked);
    let still = Asked { is_paused: false, ..asked.clone() };
    let got = site.ask(&site.overview, &still, overview::look);
    shown(site, frame, got, |data, frame, taken| overview::show(site, frame, &asked, data, taken))
}

fn list_page(site: &Site, request: &Request) -> Response {
    let asked = read!(site, request, asked::LIST);
    let frame = Frame::live(site, "Anomalies", "anomalies", "/anomalies", &asked);
    let still = Asked { is_paused: false, ..asked.clone() };
    let got = site.ask(&site.list, &still, list::look);
    shown(site, frame, got, |data, frame, _| list::show(site, frame, &asked, data))
}

fn devices_page(site: &Site, request: &Request) -> Response {
    let asked = read!(site, request, asked::CHART);
    let frame = Frame::live(site, "Devices", "devices", "/devices", &asked);
    let still = Asked { is_paused: false, ..asked.clone() };
    let got = site.ask(&site.devices, &still, devices::look);
    shown(site, frame, got, |data, frame, _| devices::show(site, frame, &asked, data))
}

fn device_page(site: &Site, request: &Request, name: String) -> Response {
    let asked = read!(site, request, asked::CHART);
    let path = device::url(&name);
    let frame = Frame::live(site, &name, "devices", &path, &asked);
    let key = (name, Asked { is_paused: false, ..asked.clone() });
    let got = site.ask(&site.device, &key, device::look);
    shown(site, frame, got, |data, frame, taken| device::show(site, frame, &key.0, &asked, data, taken))
}

fn explain_page(site: &Site, request: &Request, place: &explain::Place) -> Response {
    let asked = read!(site, request, asked::PLAIN);
    let path = place.url();
    let frame = Frame::live(site, "Anomaly", "anomalies", &path, &asked);
    let got = site.ask(&site.explain, place, explain::look);
    shown(site, frame, got, |data, frame, _| match data {
        Some(data) => explain::show(site, frame, data),
        None => {
            let frame = Frame { refresh: 0, ..frame };
            let text = "No anomaly is recorded for this record; it may be older than what is kept.";
            respond::notice(site, 404, &frame, "There is no such anomaly.", text)
        }
    })
}

/// Never old data: programs would take it for new.
fn api(site: &Site, asked: &Asked) -> Response {
    let got = site.ask(&site.list, asked, list::look);
    match (got.answer, got.why) {
        (Some((data, _)), None) => respond::json(200, &api::Body::of(&data)),
        (_, why) => respond::json_away(&why.unwrap_or(super::shelf::Why::Slow)),
    }
}
