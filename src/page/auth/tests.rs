//! Tests of logins and sessions.

use std::time::Instant;

use super::*;
use crate::config::resolved::base::BasePath;

fn auth() -> (Auth, tempfile::NamedTempFile) {
    auth_for(Duration::from_secs(60), Duration::from_secs(120))
}

/// Returns the access control with this idle timeout and this maximum lifetime of a session.
fn auth_for(idle: Duration, life: Duration) -> (Auth, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = |name: &str, role: &str, password: &str| format!("{name}:{role}:{}\n", hash(password).unwrap());
    let text =
        line("ada", "operator", "correct horse") + &line("bob", "viewer", "battery staple") + "# comment\nx:root:y\n";
    std::fs::write(file.path(), text).unwrap();
    let access = Access::Passwords { file: file.path().into(), idle, life };
    let proxies = Proxies::new(vec!["127.0.0.1".parse().unwrap()]);
    (Auth::new(access, Cookies::of(&BasePath::default(), 8501), proxies), file)
}

fn request(cookie: Option<&str>) -> Request {
    let mut request = Request::get("/", "");
    if let Some(cookie) = cookie {
        let pair = cookie.split(';').next().unwrap();
        request.headers.insert("cookie", format!("other=1; {pair}").parse().unwrap());
    }
    request
}

fn visitor(auth: &Auth, cookie: &str) -> Option<Visitor> {
    match auth.admit(&request(Some(cookie))) {
        Admission::Enter(visitor) => Some(visitor),
        _ => None,
    }
}

#[test]
fn the_right_password_lets_in_with_its_role_and_a_wrong_one_does_not() {
    let (auth, _file) = auth();
    assert!(matches!(auth.admit(&request(None)), Admission::Ask));
    for (name, password) in
        [("ada", "battery staple"), ("nobody", "correct horse"), ("x", "y"), ("", ""), ("# comment", "")]
    {
        assert_eq!(auth.enter(&request(None), name, password).unwrap_err().0, 401, "{name}");
    }
    let ada = visitor(&auth, &auth.enter(&request(None), "ada", "correct horse").unwrap()).unwrap();
    assert_eq!((ada.name.as_str(), ada.is_operator), ("ada", true));
    let bob = visitor(&auth, &auth.enter(&request(None), "bob", "battery staple").unwrap()).unwrap();
    assert!(!bob.is_operator);
}

#[test]
fn a_session_is_new_on_login_and_ends_on_the_server() {
    let (auth, _file) = auth();
    // A token that another person planted in the browser is no session and does not become one.
    let planted = format!("anomaly-8501={}", "a".repeat(64));
    let cookie = auth.enter(&request(Some(&planted)), "ada", "correct horse").unwrap();
    assert!(!cookie.contains(&"a".repeat(64)) && cookie.contains("HttpOnly; SameSite=Lax"), "{cookie}");
    assert!(visitor(&auth, &planted).is_none());
    // A second login ends the first session.
    let second = auth.enter(&request(Some(&cookie)), "ada", "correct horse").unwrap();
    assert!(visitor(&auth, &cookie).is_none() && visitor(&auth, &second).is_some());
    auth.leave(&request(Some(&second)));
    assert!(visitor(&auth, &second).is_none(), "a cookie that was copied before is worth nothing after");
}

#[test]
fn a_session_ends_after_its_idle_timeout_and_at_its_maximum_lifetime() {
    let (auth, _file) = auth_for(Duration::from_secs(1), Duration::from_millis(2500));
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    std::thread::sleep(Duration::from_millis(1100));
    assert!(visitor(&auth, &cookie).is_none(), "it was not used");
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(1800) {
        assert!(visitor(&auth, &cookie).is_some(), "{:?}", begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    std::thread::sleep(Duration::from_millis(750));
    assert!(visitor(&auth, &cookie).is_none(), "it is too old");
}

#[test]
fn a_session_ends_with_the_line_of_its_user() {
    let (auth, file) = auth();
    let (old, log_in) = (std::fs::read_to_string(file.path()).unwrap(), |password: &str| {
        auth.enter(&request(None), "ada", password).map_err(|(status, _)| status)
    });
    let line = |role: &str, password: &str| format!("ada:{role}:{}\n", hash(password).unwrap());
    // Replaces the file as `anomaly passwd` does.
    let replace = |text: &str| {
        let new = tempfile::NamedTempFile::new_in(file.path().parent().unwrap()).unwrap();
        std::fs::write(new.path(), text).unwrap();
        std::fs::rename(new.path(), file.path()).unwrap();
    };
    let [same, other, viewer] =
        [line("operator", "correct horse"), line("operator", "other horse"), line("viewer", "correct horse")];
    for (change, texts) in [
        ("a removal", &["", &old][..]),
        ("a new password", &[&other]),
        ("the same password set again", &[&same]),
        ("another role", &[&viewer]),
        ("removal and re-creation", &["", &other]),
    ] {
        replace(&old);
        let cookie = log_in("correct horse").unwrap();
        assert!(visitor(&auth, &cookie).is_some(), "{change}");
        for text in texts {
            replace(text);
            assert!(visitor(&auth, &cookie).is_none(), "{change}: the old cookie still works");
        }
    }
    replace(&other);
    assert_eq!(log_in("correct horse"), Err(401));
    assert!(visitor(&auth, &log_in("other horse").unwrap()).is_some(), "the new password opens a session");
}

#[test]
fn the_question_whether_a_session_is_open_does_not_prolong_it() {
    let (auth, file) = auth();
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    let session = auth.session(&request(Some(&cookie))).unwrap();
    assert!(auth.is_open(&session) && auth.session(&request(None)).is_none());
    auth.leave(&request(Some(&cookie)));
    assert!(!auth.is_open(&session), "after a logout");
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    let session = auth.session(&request(Some(&cookie))).unwrap();
    std::fs::write(file.path(), "").unwrap();
    assert!(!auth.is_open(&session), "after the removal of the user");
    let (auth, _file) = auth_for(Duration::from_secs(1), Duration::from_secs(60));
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    let (session, begin) = (auth.session(&request(Some(&cookie))).unwrap(), Instant::now());
    while auth.is_open(&session) {
        assert!(begin.elapsed() < Duration::from_secs(30), "the call prolongs the session");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_that_cannot_be_read_for_a_while_ends_no_session_and_locks_nobody_out() {
    let (auth, file) = auth();
    let cookie = auth.enter(&request(None), "ada", "correct horse").unwrap();
    let away = file.path().with_extension("away");
    std::fs::rename(file.path(), &away).unwrap();
    assert!(visitor(&auth, &cookie).is_none());
    for _ in 0..40 {
        assert_eq!(auth.enter(&request(None), "ada", "correct horse").unwrap_err().0, 503);
    }
    std::fs::rename(&away, file.path()).unwrap();
    assert!(visitor(&auth, &cookie).is_some());
    auth.enter(&request(None), "ada", "correct horse").unwrap();
}

#[test]
fn guessing_is_stopped_after_ten_failures_from_an_address_also_with_the_right_password() {
    let (auth, _file) = auth();
    for _ in 0..10 {
        assert_eq!(auth.enter(&request(None), "ada", "guess").unwrap_err().0, 401);
    }
    assert_eq!(auth.enter(&request(None), "ada", "correct horse").unwrap_err().0, 429);
    let elsewhere = Request { peer: "10.0.0.9".parse().unwrap(), ..request(None) };
    assert!(auth.enter(&elsewhere, "ada", "correct horse").is_ok());
}

#[test]
fn over_tls_the_cookie_belongs_to_this_host_alone() {
    let (auth, _file) = auth();
    let request = Request { is_tls: true, ..request(None) };
    let cookie = auth.enter(&request, "ada", "correct horse").unwrap();
    assert!(
        cookie.starts_with("__Host-anomaly-8501=") && cookie.contains("; Path=/;") && cookie.ends_with("; Secure"),
        "{cookie}"
    );
    assert!(!cookie.contains("Domain"));
}
