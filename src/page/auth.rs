//! Access control: who may see the pages, and who may review anomalies. On loopback no login is needed; otherwise a
//! proxy or a password identifies the user. It also refuses forms that another site's page sends in a user's name.

mod cookies;
mod forwarded;
mod limit;
mod passwords;
mod queue;
mod sessions;

use std::path::PathBuf;
use std::time::Duration;

use hyper::Method;
use sha2::{Digest, Sha256};

use crate::config::resolved::Secret;
use crate::http::{HostName, Request};
pub use cookies::Cookies;
pub use forwarded::Proxies;
use limit::LoginLimit;
use passwords::{Standing, Unchecked};
pub use passwords::{UserRole, Users, check_users, hash, read_users};
pub use sessions::SessionKey;
use sessions::{Lifetime, Sessions};

/// The way in which users are identified.
#[derive(Debug, Clone)]
pub enum Access {
    /// No login is needed. Only names of this machine are accepted, unless `is_anywhere` is set. Otherwise the owner of
    /// another site could let a name point to this machine, and scripts of that site could read the pages.
    Open {
        /// Whether the settings allow access under every host name.
        is_anywhere: bool,
    },
    /// By name and password, from a file of [`hash`]es.
    Passwords {
        /// Path of the file of users.
        file: PathBuf,
        /// Idle timeout of a session.
        idle: Duration,
        /// Maximum lifetime of a session.
        life: Duration,
    },
    /// A configured proxy authenticates users and passes their names.
    Proxy {
        /// Name of the header that the proxy sets.
        header: String,
        /// Users who may review anomalies; `*` is every user.
        operators: Vec<String>,
        /// Names of the hosts under which the proxy serves the pages, apart from those of this machine; `*` is every
        /// name.
        hosts: Vec<String>,
        /// Secret that the proxy sends, so that other programs on its address cannot act as the proxy; empty for none.
        secret: Secret,
    },
}

/// The user who sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// Name of the user, as reviews show it.
    pub name: String,
    /// Whether the user may review anomalies.
    pub is_operator: bool,
    /// Whether the user has a session that can be ended.
    pub can_leave: bool,
}

/// The decision of access control about a request.
pub enum Admission {
    /// The request is allowed for this user.
    Enter(Visitor),
    /// The user must log in first.
    Ask,
    /// The request is refused, with a status and a sentence.
    Refuse(u16, &'static str),
}

/// Answer to a form that came from another site's page, according to its headers.
const ELSEWHERE: &str = "A page of another site sent this form. If it was a page of this dashboard, a proxy changes the header \
     Host. Let the proxy pass Host on (nginx: proxy_set_header Host $http_host). Or let it set X-Forwarded-Host, and list its \
     address in dashboard.proxy_addresses.";

/// Header in which a proxy sends the secret that it shares with the dashboard.
const PROXY_SECRET: &str = "x-anomaly-proxy-secret";
/// Answer to a request without the proxy's secret.
const NO_SECRET: &str =
    "The proxy in front of this dashboard did not send dashboard.proxy_secret in X-Anomaly-Proxy-Secret.";

/// Access control of a dashboard.
pub struct Auth {
    access: Access,
    cookies: Cookies,
    proxies: Proxies,
    users: Users,
    sessions: Sessions,
    limit: LoginLimit,
}

impl Auth {
    /// Creates the access control without open sessions.
    pub fn new(access: Access, cookies: Cookies, proxies: Proxies) -> Auth {
        let (file, lifetime) = match &access {
            Access::Passwords { file, idle, life } => (file.clone(), Lifetime { idle: *idle, whole: *life }),
            _ => (PathBuf::new(), Lifetime { idle: Duration::ZERO, whole: Duration::ZERO }),
        };
        let (users, sessions) = (Users::new(file), Sessions::new(lifetime));
        Auth { access, cookies, proxies, users, sessions, limit: LoginLimit::default() }
    }

    /// Returns whether users log in with a password.
    pub fn has_login(&self) -> bool {
        matches!(self.access, Access::Passwords { .. })
    }

    /// Decides whether a request is allowed.
    pub fn admit(&self, request: &Request) -> Admission {
        if request.method == Method::POST && !self.is_from_here(request) {
            return Admission::Refuse(403, ELSEWHERE);
        }
        match &self.access {
            Access::Open { is_anywhere } if *is_anywhere || request.host().is_some_and(|host| host.is_own()) => {
                Admission::Enter(Visitor { name: "anyone".to_owned(), is_operator: true, can_leave: false })
            }
            Access::Open { .. } => Admission::Refuse(
                421,
                "Pages without passwords are served under localhost or an address only; dashboard.insecure allows all names.",
            ),
            Access::Proxy { header, operators, hosts, secret } => {
                if !self.is_host_of_proxy(request, hosts) {
                    return Admission::Refuse(
                        421,
                        "The pages are not served under this host name: dashboard.proxy_hosts lacks it.",
                    );
                }
                if !is_secret(request.single(PROXY_SECRET), secret.reveal()) {
                    return Admission::Refuse(403, NO_SECRET);
                }
                // If the header is given twice, the proxy has passed on one from its client.
                let name = request.single(header).map(str::trim).filter(|name| !name.is_empty() && name.len() <= 256);
                match name {
                    Some(name) if self.proxies.sent(request) => {
                        let is_operator = operators.iter().any(|operator| operator == "*" || operator == name);
                        Admission::Enter(Visitor { name: name.to_owned(), is_operator, can_leave: false })
                    }
                    _ => Admission::Refuse(403, "The proxy in front of this dashboard did not send your user name."),
                }
            }
            Access::Passwords { .. } => {
                let Some(token) = self.token(request) else { return Admission::Ask };
                let Some((name, user)) = self.sessions.find(&token) else { return Admission::Ask };
                match self.users.standing(&name, &user) {
                    Standing::Same(role) => {
                        Admission::Enter(Visitor { name, is_operator: role == UserRole::Operator, can_leave: true })
                    }
                    // The session stays ended if the same line comes back.
                    Standing::Gone => {
                        self.sessions.end(&token);
                        Admission::Ask
                    }
                    Standing::Unknown => Admission::Ask,
                }
            }
        }
    }

    /// Returns whether the proxy serves the pages under the host names of a request. Without this check, the owner of
    /// another site could let its name point to this machine. Scripts of that site could then send the header with a
    /// user's name, but they cannot choose the header `Host`.
    fn is_host_of_proxy(&self, request: &Request, hosts: &[String]) -> bool {
        let is_known = |host: &HostName| {
            host.is_own() || hosts.iter().any(|known| known == "*" || known.eq_ignore_ascii_case(&host.name))
        };
        let forwarded = self.proxies.host(request);
        request.host().as_ref().is_some_and(is_known)
            && forwarded.is_none_or(|host| HostName::parse(&host).as_ref().is_some_and(is_known))
    }

    /// Logs a user in; returns the cookie of a new session.
    ///
    /// # Errors
    /// A status and a sentence: 401 if name or password are wrong, 429 after too many attempts, 503 while too many
    /// logins are being checked.
    pub fn enter(&self, request: &Request, name: &str, password: &str) -> Result<String, (u16, &'static str)> {
        let peer = self.proxies.client(request);
        let Some(attempt) = self.limit.begin(peer, name) else {
            return Err((429, "Too many attempts. Try again in a few minutes."));
        };
        let user = match self.users.check(name, password, limit::network(peer)) {
            Ok(Some(user)) => user,
            Ok(None) => {
                tracing::warn!(%peer, "login failed");
                if !self.proxies.sent(request)
                    && ["x-forwarded-for", "forwarded"].iter().any(|name| request.headers.contains_key(*name))
                {
                    let remedy = "is it a proxy? All who come through it share one limit until dashboard.proxy_addresses names it";
                    tracing::warn!(%peer, "this address sends forwarding headers but is not trusted: {remedy}");
                }
                return Err((401, "The name or the password is wrong."));
            }
            Err(unchecked) => {
                self.limit.forgive(&attempt);
                return Err((
                    503,
                    match unchecked {
                        Unchecked::Busy => "Too many are logging in at once. Try again.",
                        Unchecked::Unreadable => "Passwords cannot be checked now. Try again later; the log says why.",
                    },
                ));
            }
        };
        // An earlier session, whose token another person may know, ends. The new session has a new random token.
        self.leave(request);
        self.limit.succeeded(&attempt);
        let token = self.sessions.begin(name, user).ok_or((503, "The session cannot be started now. Try again."))?;
        tracing::info!(%peer, name, "user logged in");
        Ok(self.cookies.set(&token, self.is_encrypted(request)))
    }

    /// Ends the session on the server; returns the header that removes the cookie from the browser.
    pub fn leave(&self, request: &Request) -> String {
        if let Some(token) = self.token(request) {
            self.sessions.end(&token);
        }
        self.cookies.clear(self.is_encrypted(request))
    }

    /// Returns the session that a request names; `None` where users need none.
    pub fn session(&self, request: &Request) -> Option<SessionKey> {
        self.token(request).filter(|_| self.has_login()).map(|token| SessionKey::of(&token))
    }

    /// Returns whether a session is open. Unlike a request, this call does not reset the idle timeout.
    pub fn is_open(&self, session: &SessionKey) -> bool {
        let user = self.sessions.peek(session);
        // A file that cannot be read for a while ends no session.
        user.is_some_and(|(name, user)| self.users.standing(&name, &user) != Standing::Gone)
    }

    /// Returns the header of a test cookie, by which [`returns_cookies`](Self::returns_cookies) recognises browsers
    /// that keep cookies.
    pub fn test_cookie(&self, request: &Request) -> String {
        self.cookies.set_test(self.is_encrypted(request))
    }

    /// Returns whether the browser has sent the test cookie of the login form back.
    pub fn returns_cookies(&self, request: &Request) -> bool {
        self.cookies.has_test(request, self.is_encrypted(request))
    }

    fn token(&self, request: &Request) -> Option<String> {
        self.cookies.token(request, self.is_encrypted(request))
    }

    /// Returns whether the user's connection is encrypted, to the dashboard or to a trusted proxy.
    pub fn is_encrypted(&self, request: &Request) -> bool {
        self.proxies.is_encrypted(request)
    }

    /// Returns whether a form came from this site. Browsers name the site that a form was sent from; other programs
    /// send no such header and have no session to be misused. Over plain HTTP, browsers send only the origin, which is
    /// compared with the host name of the request.
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

/// Returns a host without the port that its scheme implies.
fn bare<'a>(scheme: &str, host: &'a str) -> &'a str {
    let port = if scheme == "https" { ":443" } else { ":80" };
    host.strip_suffix(port).unwrap_or(host)
}

/// Returns whether a request contains the proxy's secret, or none is set. The duration does not depend on how many
/// characters are right.
fn is_secret(sent: Option<&str>, secret: &str) -> bool {
    let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text));
    secret.is_empty() || sent.is_some_and(|sent| openssl::memcmp::eq(&hash(sent), &hash(secret)))
}

#[cfg(test)]
mod tests;
