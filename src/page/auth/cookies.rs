//! The cookie that carries a session's token. Its name identifies the dashboard, because browsers share cookies among
//! all ports of a host. A cookie of a path is also sent to the paths below it.

use crate::config::resolved::base::BasePath;
use crate::http::Request;

/// Names and path of a dashboard's cookies.
#[derive(Debug)]
pub struct Cookies {
    plain: String,
    /// Cookie name over TLS. With the prefix, browsers send the cookie over TLS only, and with `__Host-` to this host
    /// only.
    secure: String,
    path: String,
}

impl Cookies {
    /// Creates the names for the dashboard at a port and path.
    pub fn of(base: &BasePath, port: u16) -> Cookies {
        let is_own = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let path = base.as_str().replace(|c: char| !is_own(c), ".");
        let plain = format!("anomaly-{port}{path}");
        // Browsers require that `__Host-` is valid for the whole host.
        let prefix = if path.is_empty() { "__Host-" } else { "__Secure-" };
        Cookies {
            secure: format!("{prefix}{plain}"),
            plain,
            path: if path.is_empty() { "/".to_owned() } else { base.as_str().to_owned() },
        }
    }

    /// Returns the token in a request's cookie.
    pub fn token(&self, request: &Request, is_encrypted: bool) -> Option<String> {
        self.value(request, if is_encrypted { &self.secure } else { &self.plain })
    }

    /// Returns the header of the test cookie, by which the login form learns whether the browser keeps cookies.
    pub fn set_test(&self, is_encrypted: bool) -> String {
        self.set("1", is_encrypted).replacen('=', "-test=", 1)
    }

    /// Returns whether the browser has sent the test cookie back.
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

    /// Returns the header that sets a token.
    pub fn set(&self, token: &str, is_encrypted: bool) -> String {
        let (name, secure) = if is_encrypted { (&self.secure, "; Secure") } else { (&self.plain, "") };
        format!("{name}={token}; Path={}; HttpOnly; SameSite=Lax{secure}", self.path)
    }

    /// Returns the header that removes the token.
    pub fn clear(&self, is_encrypted: bool) -> String {
        format!("{}; Max-Age=0", self.set("", is_encrypted))
    }
}
