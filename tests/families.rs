//! Tests on hosts with one address family or both, as network namespaces.

use std::process::Command;

use super::common::{Case, Parts};

/// Script that runs a dashboard in a network namespace without IPv4. Prints the readiness at each of `for`, and the answers of the
/// pages.
const SCRIPT: &str = r#"
ip link set lo up && ip -4 addr flush dev lo || exit 3
"$@" & pid=$!
ask() {
  exec 3<>"/dev/tcp/::1/$1" && printf 'GET %s HTTP/1.0\r\nhost: localhost\r\n\r\n' "$2" >&3 && tr -d '\r' <&3 | sed -n '1p;$p'
  exec 3<&-
}
until [[ $(ask 9466 /readyz 2>/dev/null) == *' 200 '* ]]; do kill -0 $pid || exit 4; sleep 0.1; done
# Long enough for it to have asked itself.
for ((i = 0; i < 50; i++)); do ask 9466 /readyz; sleep 0.1; done
echo "pages: $(ask 8501 /robots.txt | head -1)"
kill $pid; wait $pid
"#;

#[test]
fn a_dashboard_on_a_host_without_ipv4_serves_and_is_ready_at_any_address() {
    std::thread::scope(|scope| {
        for listen in ["", "127.0.0.1:8501", "[::]:8501", "[::1]:8501"] {
            scope.spawn(move || {
                let case = Case::bare("six", Parts::shared());
                let role = case.command(&["--role", "dashboard"]);
                let mut command = Command::new("unshare");
                command.args(["-rn", "bash", "-c", SCRIPT, "six"]).arg(role.get_program()).args(role.get_args());
                role.get_envs().for_each(|(name, value)| match value {
                    Some(value) => drop(command.env(name, value)),
                    None => drop(command.env_remove(name)),
                });
                command.env("ANOMALY__METRICS__LISTEN", "").env("ANOMALY__DASHBOARD__INSECURE", "true");
                command.env("ANOMALY__DASHBOARD__LISTEN", listen).env("ANOMALY__LOG__TARGET", "stderr");
                let output = command.output().unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                let log = String::from_utf8_lossy(&output.stderr);
                assert!(output.status.success(), "{listen}: {:?}\n{text}{log}", output.status);
                // Without a network the database is unreachable, and that alone.
                let others = text.lines().filter(|line| line.starts_with("degraded: "));
                let others = others
                    .filter(|line| !line.starts_with("degraded: pages: PostgreSQL has been unreachable since "))
                    .count();
                assert!(others == 0 && text.matches("HTTP/1.").count() > 50, "{listen}: {text}{log}");
                assert!(
                    text.contains("pages: HTTP/1.1 200") || text.contains("pages: HTTP/1.0 200"),
                    "{listen}: {text}{log}"
                );
                assert!(log.contains("this machine has no 127.0.0.1: listening on [::1]:9466"), "{listen}: {log}");
            });
        }
    });
}
