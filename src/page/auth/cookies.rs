//! The cookie that carries a session's token. Its name says which dashboard it belongs to: browsers share cookies among all
//! ports of a host, and send one of a path also to what is below it.

use crate::config::resolved::base::BasePath;
use crate::http::Request;

/// Names and path of a dashboard's cookies.
#[derive(Debug)]
pub struct Cookies {
    plain: String,
    /// Over TLS: the prefix tells the browser to take it over TLS only, and `__Host-` from this host alone.
    secure: String,
    path: String,
}

impl Cookies {
    /// Of the dashboard at this port and path.
    pub fn of(base: &BasePath, port: u16) -> Cookies {
        let is_own = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let path = base.as_str().replace(|c: char| !is_own(c), ".");
        let plain = format!("anomaly-{port}{path}");
        // Browsers want `__Host-` to be valid for the whole host.
        let prefix = if path.is_empty() { "__Host-" } else { "__Secure-" };
        Cookies {
            secure: format!("{prefix}{plain}"),
            plain,
            path: if path.is_empty() { "/".to_owned() } else { base.as_str().to_owned() },
        }
    }

    /// The token of a request's cookie.
    pub fn token(&self, request: &Request, is_encrypted: bool) -> Option<String> {
        self.value(request, if is_encrypted { &self.secure } else { &self.plain })
    }

    /// Sets a cookie without meaning, by which the login form learns whether the browser sends cookies back.
    pub fn set_test(&self, is_encrypted: bool) -> String {
        self.set("1", is_encrypted).replacen('=', "-test=", 1)
    }

    /// Whether the browser has sent that cookie back.
    pub fn has_test(&self, request: &Request, is_encrypted: bool) -> bool {
        let name = if is_encrypted { &self.secure } else { &self.plain };
        self.value(request, &format!("{name}-test")).is_some()
    }

    fn value(&self, request: &Request, wanted: &str) -> Option<String> {
        let mut cookies = request.headers.get_all("cookie").iter().filter_map(|line| line.to_str().ok());
        let pair = |cookie: &str| {
            cookie.trim().split_once('=').filter(|(name, _)| *name == wanted).map(|(_, value)| value.to_owned())
        };
        cookies.find_map(|line| line.split(';').find_map(pair))
    }

    /// Sets a token.
    pub fn set(&self, token: &str, is_encrypted: bool) -> String {
        let (name, secure) = if is_encrypted { (&self.secure, "; Secure") } else { (&self.plain, "") };
        format!("{name}={token}; Path={}; HttpOnly; SameSite=Lax{secure}", self.path)
    }

    /// Takes it away.
    pub fn clear(&self, is_encrypted: bool) -> String {
        format!("{}; Max-Age=0", self.set("", is_encrypted))
    }
}
