//! Who may come in, and what they may do: everybody on loopback, those whom a proxy names, or those with a password. Also
//! keeps other sites from acting in a visitor's name.

mod cookies;
mod forwarded;
mod limit;
mod passwords;
mod sessions;

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;

use crate::http::Request;
pub use cookies::Cookies;
pub use forwarded::Proxies;
use limit::LoginLimit;
pub use passwords::{UserRole, Users, hash, look};
use sessions::{Lifetime, Sessions};

/// How visitors are known.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nobody is asked. `is_anywhere`: also under names that are not this machine's own (a name that another site's owner
    /// points here lets that site's script in, unless a wall stands before it).
    Open {
        /// Told so explicitly.
        is_anywhere: bool,
    },
    /// By name and password, from a file of [`hash`]es.
    Passwords {
        /// The file.
        file: PathBuf,
        /// A session ends when it is not used for so long.
        idle: Duration,
        /// A session ends.
        life: Duration,
    },
    /// A proxy of ours that has asked them says who they are.
    Proxy {
        /// Name of the header that it sets.
        header: String,
        /// Those who may mark; `*` is everybody.
        operators: Vec<String>,
    },
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// As marks name them.
    pub name: String,
    /// May mark.
    pub is_operator: bool,
    /// Has a session that can be ended.
    pub can_leave: bool,
}

/// What a request gets at the door.
pub enum Admission {
    /// May come in.
    Enter(Visitor),
    /// Must say who they are first.
    Ask,
    /// Is sent away: a status and a sentence.
    Refuse(u16, &'static str),
}

/// A form that came from no page of this site, as far as the headers say.
const ELSEWHERE: &str = "This was sent by another site's page. If it was this dashboard's own, a proxy before it changes the \
     header Host: let it pass Host on (nginx: proxy_set_header Host $http_host), or set X-Forwarded-Host and be one of \
     dashboard.proxy_addresses.";

/// The door.
pub struct Auth {
    access: Access,
    cookies: Cookies,
    proxies: Proxies,
    users: Users,
    sessions: Sessions,
    limit: LoginLimit,
}

impl Auth {
    /// Nobody is in.
    pub fn new(access: Access, cookies: Cookies, proxies: Proxies) -> Auth {
        let (file, lifetime) = match &access {
            Access::Passwords { file, idle, life } => (file.clone(), Lifetime { idle: *idle, whole: *life }),
            _ => (PathBuf::new(), Lifetime { idle: Duration::ZERO, whole: Duration::ZERO }),
        };
        let (users, sessions) = (Users::new(file), Sessions::new(lifetime));
        Auth { access, cookies, proxies, users, sessions, limit: LoginLimit::default() }
    }

    /// Whether there is a page where visitors say who they are.
    pub fn has_login(&self) -> bool {
        matches!(self.access, Access::Passwords { .. })
    }

    /// Looks at a request.
    pub fn look(&self, request: &Request) -> Admission {
        if request.method == Method::POST && !self.is_from_here(request) {
            return Admission::Refuse(403, ELSEWHERE);
        }
        match &self.access {
            Access::Open { is_anywhere } if *is_anywhere || is_own_name(request.header("host")) => {
                Admission::Enter(Visitor { name: "anyone".to_owned(), is_operator: true, can_leave: false })
            }
            Access::Open { .. } => Admission::Refuse(
                421,
                "Pages without passwords are served under localhost or an address only; dashboard.insecure allows all names.",
            ),
            Access::Proxy { header, operators } => {
                let name = request.header(header).map(str::trim).filter(|name| !name.is_empty() && name.len() <= 256);
                match name {
                    Some(name) if self.proxies.sent(request) => {
                        let is_operator = operators.iter().any(|operator| operator == "*" || operator == name);
                        Admission::Enter(Visitor { name: name.to_owned(), is_operator, can_leave: false })
                    }
                    _ => Admission::Refuse(403, "The proxy before this dashboard has to say who you are."),
                }
            }
            Access::Passwords { .. } => {
                let name = self.token(request).and_then(|token| self.sessions.find(&token));
                // Who is no longer in the file is no longer in.
                match name.and_then(|name| Some((self.users.role(&name)?, name))) {
                    Some((role, name)) => {
                        Admission::Enter(Visitor { name, is_operator: role == UserRole::Operator, can_leave: true })
                    }
                    None => Admission::Ask,
                }
            }
        }
    }

    /// Lets someone in with a password: the cookie of a new session, or the status and the sentence of a refusal.
    ///
    /// # Errors
    /// 401 when name or password are wrong, 429 after too many attempts, 503 while too many are being checked.
    pub fn enter(&self, request: &Request, name: &str, password: &str) -> Result<String, (u16, &'static str)> {
        let peer = self.proxies.client(request);
        if !self.limit.may_try(peer, name) {
            return Err((429, "Too many attempts. Try again in a few minutes."));
        }
        match self.users.check(name, password) {
            Ok(true) => {}
            Ok(false) => {
                self.limit.failed(peer, name);
                tracing::warn!(%peer, "a login failed");
                if !self.proxies.sent(request)
                    && ["x-forwarded-for", "forwarded"].iter().any(|name| request.headers.contains_key(*name))
                {
                    let remedy = "is it a proxy? All who come through it share one limit until dashboard.proxy_addresses names it";
                    tracing::warn!(%peer, "this address forwards for others and is not believed: {remedy}");
                }
                return Err((401, "The name or the password is wrong."));
            }
            Err(passwords::HashingBusy) => return Err((503, "Too many are logging in at once. Try again.")),
        }
        // An old session, perhaps given by someone else, ends: the new one has a name that nobody knew before.
        self.leave(request);
        let token = self.sessions.begin(name).ok_or((503, "No session can be begun now. Try again."))?;
        tracing::info!(%peer, name, "a login");
        self.limit.succeeded(peer, name);
        Ok(self.cookies.set(&token, self.is_encrypted(request)))
    }

    /// Ends the session, here and not only in the browser; the cookie that takes it away.
    pub fn leave(&self, request: &Request) -> String {
        if let Some(token) = self.token(request) {
            self.sessions.end(&token);
        }
        self.cookies.clear(self.is_encrypted(request))
    }

    /// Sets the cookie by which [`returns_cookies`](Self::returns_cookies) knows browsers that keep cookies.
    pub fn test_cookie(&self, request: &Request) -> String {
        self.cookies.set_test(self.is_encrypted(request))
    }

    /// Whether the browser has sent the test cookie of the login form back.
    pub fn returns_cookies(&self, request: &Request) -> bool {
        self.cookies.has_test(request, self.is_encrypted(request))
    }

    fn token(&self, request: &Request) -> Option<String> {
        self.cookies.token(request, self.is_encrypted(request))
    }

    /// Whether the visitor's connection is encrypted, here or at a proxy of ours.
    pub fn is_encrypted(&self, request: &Request) -> bool {
        self.proxies.is_encrypted(request)
    }

    /// Browsers say where a form was sent from; what is no browser says nothing and has no visitor to be misused. Over plain
    /// HTTP they say only the origin, which is compared with the name that the request came to.
    fn is_from_here(&self, request: &Request) -> bool {
        if let Some(site) = request.header("sec-fetch-site") {
            return site == "same-origin" || site == "none";
        }
        let Some(origin) = request.header("origin") else { return true };
        let Some((scheme, origin)) = origin.split_once("://") else { return false };
        let host = request.header("host").map(str::to_owned);
        let is_it = |host: String| bare(scheme, &host).eq_ignore_ascii_case(bare(scheme, origin));
        host.into_iter().chain(self.proxies.host(request)).any(is_it)
    }
}

/// A host without the port that its scheme implies.
fn bare<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host)
}

/// Names that no stranger can point here.
fn is_own_name(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    if let Some(inside) = host.strip_prefix('[') {
        return inside.split(']').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = host.split(':').next().unwrap_or_default().to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests;
