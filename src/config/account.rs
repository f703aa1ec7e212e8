//! Reads files as another user of this machine does. `anomaly check` runs as root, the services as user `anomaly`.

use std::io;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// User of the packaged units.
pub const SERVICE: &str = "anomaly";

/// A user, with the groups that decide what it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name of the user.
    pub name: String,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// Finds a user by its name in `/etc/passwd`, with its groups in `/etc/group`; `None` if there is none.
    ///
    /// # Errors
    /// When one of the two files cannot be read.
    pub fn find(name: &str) -> io::Result<Option<Account>> {
        let (users, groups) = (std::fs::read_to_string("/etc/passwd")?, std::fs::read_to_string("/etc/group")?);
        Ok(parse(name, &users, &groups))
    }

    /// Runs `body` with this user's permissions, in a separate thread. Only root may do this for another user.
    ///
    /// # Errors
    /// When the system refuses to change the thread's user.
    pub fn act<T: Send>(&self, body: impl FnOnce() -> T + Send) -> io::Result<T> {
        let run = || {
            let group = |id: u32| Gid::from_raw(id);
            let (uid, gid) = (Uid::from_raw(self.uid), group(self.gid));
            // These calls change only the calling thread. Root's capabilities end with its user id.
            set_thread_groups(&self.groups.iter().map(|id| group(*id)).collect::<Vec<_>>())?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            Ok(body())
        };
        std::thread::scope(|scope| {
            scope.spawn(run).join().unwrap_or_else(|_| Err(io::Error::other("the reading thread panicked")))
        })
    }
}

/// Runs `body` as `account`, or as the process's own user if it is `None`.
///
/// # Errors
/// As [`Account::act`].
pub fn acting<T: Send>(account: Option<&Account>, body: impl FnOnce() -> T + Send) -> io::Result<T> {
    match account {
        Some(account) => account.act(body),
        None => Ok(body()),
    }
}

/// Returns the name of a user id, or the number if `/etc/passwd` has no entry.
pub fn name_of(uid: u32) -> String {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_in(uid, &users).unwrap_or_else(|| uid.to_string())
}

/// Returns the name of the user that reads: the account's, or the process's own.
pub fn reader(account: Option<&Account>) -> String {
    account.map_or_else(|| name_of(geteuid().as_raw()), |account| account.name.clone())
}

/// Returns whether this process may read as other users do.
pub fn is_root() -> bool {
    geteuid().is_root()
}

fn name_in(id: u32, table: &str) -> Option<String> {
    let fields = table.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let mut found = fields.filter(|fields| fields.get(2).is_some_and(|field| field.parse() == Ok(id)));
    found.next().map(|fields| fields[0].to_owned())
}

fn parse(name: &str, users: &str, groups: &str) -> Option<Account> {
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
    let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
    let is_member = |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
    let more = groups.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(is_member);
    let more = more.filter_map(|fields| fields.get(2)?.parse().ok());
    Some(Account { name: name.to_owned(), uid, gid, groups: std::iter::once(gid).chain(more).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_its_own_group_and_those_that_name_it() {
        let users = "root:x:0:0::/root:/bin/sh\nanomaly:x:997:996::/:/usr/sbin/nologin\n";
        let groups = "anomaly:x:996:\nssl-cert:x:110:postgres,anomaly\nadm:x:4:anomalyst\n";
        let account = parse("anomaly", users, groups).unwrap();
        assert_eq!((account.uid, account.gid, account.groups), (997, 996, vec![996, 110]));
        assert_eq!(parse("nobody", users, groups), None);
        assert_eq!(name_in(997, users).as_deref(), Some("anomaly"));
    }
}
