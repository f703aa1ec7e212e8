//! Checks the architecture that `src/lib.rs` describes: which room may import which, and the rules for every file. It
//! reads the source itself, so that a violation names its file and line.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::common::root;

/// Pure rooms: no I/O, clock, logging, metrics or process control.
const CORE: [&str; 12] = [
    "event",
    "series_block",
    "series",
    "method",
    "anomaly",
    "detect",
    "fail",
    "foreign",
    "ledger",
    "limits",
    "policy",
    "unavailable",
];
/// Rooms of data and traits that edges and roles exchange.
const REPORTS: [&str; 7] = ["archive", "clock", "finding", "health", "meter", "pem", "stop"];
const EDGES: [&str; 5] = ["source", "stream", "store", "page", "service"];
/// Rooms that edges may import: an HTTP server that does not know its pages.
const SHARED: [&str; 1] = ["http"];
const WIRING: [&str; 5] = ["role", "command", "cli", "lib", "main"];
/// Maximum number of lines of a file before its tests.
const LINES: usize = 400;

/// One file below `src`.
struct File {
    /// Path such as `src/stream/kafka/fetch.rs`.
    name: String,
    /// Module path such as `["stream", "kafka", "fetch"]`.
    module: Vec<String>,
    text: String,
}

impl File {
    fn room(&self) -> &str {
        &self.module[0]
    }

    /// Returns whether the file is a module for tests, such as `src/event/tests.rs`, or the simulation.
    fn is_test(&self) -> bool {
        self.module.iter().any(|name| name == "tests" || name == "simulation")
    }

    /// Returns line number and text of the lines that are built into the program: all before the tests at the end, with
    /// comments blanked.
    fn code(&self) -> Vec<(usize, &str)> {
        if self.is_test() {
            return Vec::new();
        }
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.take_while(|(_, line)| *line != "#[cfg(test)]").map(|(at, line)| (at, without_comment(line))).collect()
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") { "" } else { line.split(" // ").next().unwrap_or(line) }
}

fn files() -> Vec<File> {
    let src = root().join("src");
    let mut found = Vec::new();
    gather(&src, &mut found);
    found.sort();
    let files = found.into_iter().map(|path| read(&src, &path)).collect::<Vec<_>>();
    assert!(files.len() > 50, "only {} files in {}", files.len(), src.display());
    files
}

fn gather(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            gather(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn read(src: &Path, path: &Path) -> File {
    let below = path.strip_prefix(src).unwrap();
    let module = below.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    File { name: format!("src/{}", below.display()), module, text: std::fs::read_to_string(path).unwrap() }
}

/// Returns every path into this crate, from its root, with its first line: `crate::…`, `super::…` and their groups.
fn imports(file: &File) -> Vec<(usize, String)> {
    let code = file.code();
    let mut text = String::new();
    let mut starts = Vec::new();
    for (line, code) in &code {
        starts.push((text.len(), *line));
        let _ = writeln!(text, "{code}");
    }
    let line_of = |at: usize| starts.iter().rev().find(|(start, _)| *start <= at).map_or(0, |(_, line)| *line);
    let mut all = Vec::new();
    for (base, prefix) in [(Vec::new(), "crate::"), (parent(&file.module), "super::")] {
        for (at, _) in text.match_indices(prefix) {
            let is_whole_word = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if is_whole_word {
                let paths = expand(&text[at + prefix.len()..], base.clone());
                all.extend(paths.into_iter().map(|path| (line_of(at), path)));
            }
        }
    }
    all
}

fn parent(module: &[String]) -> Vec<String> {
    module[..module.len() - 1].to_vec()
}

/// Returns the paths at the beginning of `text`, with groups resolved: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(text: &str, mut base: Vec<String>) -> Vec<String> {
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            return members(group).into_iter().flat_map(|member| expand(member, base.clone())).collect();
        }
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        match &rest[..end] {
            "super" => drop(base.pop()),
            "" | "self" => {}
            word => base.push(word.to_owned()),
        }
        match rest[end..].strip_prefix("::") {
            Some(further) => rest = further,
            None => return vec![base.join("::")],
        }
    }
}

/// Returns the members of a group after its opening brace.
fn members(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(text[from..at].trim());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|member| !member.is_empty());
    found
}

/// Returns whether a file of this room may import this path of the crate.
fn may(room: &str, path: &str) -> bool {
    let target = path.split("::").next().unwrap_or_default();
    if CORE.contains(&room) {
        return CORE.contains(&target);
    }
    let is_common = CORE.contains(&target) || REPORTS.contains(&target);
    if REPORTS.contains(&room) {
        return is_common;
    }
    if SHARED.contains(&room) {
        return target == room || is_common || target == "error";
    }
    if EDGES.contains(&room) {
        let is_resolved = path == "config::resolved" || path.starts_with("config::resolved::");
        return target == room || is_common || SHARED.contains(&target) || target == "error" || is_resolved;
    }
    match room {
        "error" => false,
        "config" => is_common || ["error", "config"].contains(&target),
        _ => WIRING.contains(&room),
    }
}

#[track_caller]
fn none(violations: Vec<String>) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

#[test]
fn core_imports_only_core_edges_never_one_another_and_only_roles_and_commands_wire() {
    let mut seen = 0;
    let mut violations = Vec::new();
    for file in files() {
        for (line, path) in imports(&file) {
            seen += 1;
            if !may(file.room(), &path) {
                violations.push(format!("{}:{line} imports {path}, which {} may not", file.name, file.room()));
            }
        }
    }
    assert!(seen > 200, "only {seen} imports were found");
    none(violations);
}

#[test]
fn every_module_has_a_place_in_the_order() {
    let known = |room: &str| {
        [&CORE[..], &REPORTS, &EDGES, &SHARED, &WIRING, &["config", "error"]].iter().any(|rooms| rooms.contains(&room))
    };
    let strays = files().into_iter().filter(|file| !known(file.room()));
    none(strays.map(|file| format!("{}:1 is in no room that src/lib.rs knows", file.name)).collect());
}

#[test]
fn the_rule_sees_groups_parents_and_inline_paths() {
    let file = |name: &str, text: &str| File {
        name: name.into(),
        module: name.split('/').map(str::to_owned).collect(),
        text: text.into(),
    };
    let paths =
        |file: &File| imports(file).into_iter().map(|(line, path)| format!("{line} {path}")).collect::<Vec<_>>();
    let text = "use crate::{event, store::{self, row::Row}};\nfn f() { crate::page::app() }\n// crate::role\n";
    assert_eq!(paths(&file("stop", text)), ["1 event", "1 store", "1 store::row::Row", "2 page::app"]);
    assert_eq!(paths(&file("store/a", "use super::super::page;\nuse super::row;\n")), ["1 page", "2 store::row"]);
    assert_eq!(paths(&file("store/a", "use super::{\n    b,\n    c::D,\n};\n")), ["1 store::b", "1 store::c::D"]);
    assert!(paths(&file("stop", "#[cfg(test)]\nmod tests { use crate::page; }\n")).is_empty());
    for (room, path) in [
        ("stop", "error::Error"),
        ("store", "page::app"),
        ("page", "config::load"),
        ("error", "event"),
        ("http", "page"),
        ("series", "health"),
        ("health", "store"),
    ] {
        assert!(!may(room, path), "{room} may import {path}");
    }
    for (room, path) in [("stop", "health"), ("store", "store::row"), ("page", "config::resolved"), ("role", "page")] {
        assert!(may(room, path), "{room} may not import {path}");
    }
}

/// Returns the types that a file defines outside of modules and functions, with their lines.
fn types<'f>(file: &'f File) -> impl Iterator<Item = (usize, &'f str)> {
    let named = |code: &'f str| {
        if code.starts_with(' ') {
            return None;
        }
        let rest = code.strip_prefix("pub").unwrap_or(code);
        let rest = rest.strip_prefix('(').map_or(Some(rest), |rest| Some(rest.split_once(')')?.1))?;
        let (kind, rest) = rest.trim_start().split_once(' ')?;
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
        is_type.then(|| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()).flatten()
    };
    file.text.lines().enumerate().filter_map(move |(at, code)| Some((at + 1, named(code)?)))
}

#[test]
fn no_type_name_occurs_twice() {
    let files = files();
    let mut seen = std::collections::BTreeMap::new();
    let mut twice = Vec::new();
    for file in &files {
        for (line, name) in types(file) {
            if let Some(other) = seen.insert(name, &file.name) {
                twice.push(format!("{}:{line} defines {name}, as {other} does", file.name));
            }
        }
    }
    assert!(seen.len() > 200, "only {} types were found", seen.len());
    none(twice);
}

/// Returns the imports of each file, by number. Those between a parent and its children are among them.
fn graph(files: &[File]) -> Vec<Vec<usize>> {
    let number = |path: &str| {
        let mut path = path.split("::").collect::<Vec<_>>();
        // The longest beginning that is a file: the rest are its items.
        while !path.is_empty() {
            if let Some(found) = files.iter().position(|file| file.module == path) {
                return Some(found);
            }
            path.pop();
        }
        None
    };
    let edges = |from: usize| {
        let found = imports(&files[from]).into_iter().chain(child_imports(&files[from], files));
        let mut found = found.filter_map(|(_, path)| number(&path)).filter(|to| *to != from).collect::<Vec<_>>();
        found.sort_unstable();
        found.dedup();
        found
    };
    (0..files.len()).map(edges).collect()
}

/// Returns the paths that begin with `self::` or with the name of a child that is a file: `child::Item`.
fn child_imports(file: &File, files: &[File]) -> Vec<(usize, String)> {
    let children = files.iter().filter(|other| parent(&other.module) == file.module);
    let children = children.filter_map(|child| child.module.last()).map(|name| format!("{name}::"));
    let mut all = Vec::new();
    for name in children.chain(["self::".to_owned()]) {
        for (line, code) in file.code() {
            for (at, _) in code.match_indices(&name) {
                let is_whole_word = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
                if is_whole_word {
                    all.extend(expand(&code[at..], file.module.clone()).into_iter().map(|path| (line, path)));
                }
            }
        }
    }
    all
}

/// Returns the groups of files of which each imports each other, directly or through others: the strongly connected
/// components with more than one file. Files that `applies` refuses are left out with their imports.
fn cycles(edges: &[Vec<usize>], applies: impl Fn(usize) -> bool) -> Vec<Vec<usize>> {
    let reached = |from: usize| {
        let mut seen = vec![false; edges.len()];
        let mut waiting = vec![from];
        while let Some(at) = waiting.pop() {
            for &to in edges[at].iter().filter(|to| applies(**to)) {
                if !std::mem::replace(&mut seen[to], true) {
                    waiting.push(to);
                }
            }
        }
        seen
    };
    let reached = (0..edges.len()).map(|from| if applies(from) { reached(from) } else { vec![] }).collect::<Vec<_>>();
    let group = |from: usize| {
        (0..edges.len()).filter(|to| applies(*to) && reached[from][*to] && reached[*to][from]).collect::<Vec<_>>()
    };
    let mut groups =
        (0..edges.len()).filter(|from| applies(*from)).map(group).filter(|group| group.len() > 1).collect::<Vec<_>>();
    groups.sort();
    groups.dedup();
    groups
}

/// Returns the groups of files that import one another in a cycle which the layout forbids.
///
/// A group may consist of one parent and its direct children only. Without their parent these children form no cycle. So
/// no cycle passes through a grandchild, a sibling of the parent, or children alone. What children need from their
/// parent's other children, they import from these; the parent declares modules, wires, and holds what its children share.
fn forbidden_cycles(files: &[File], edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let is_family = |group: &Vec<usize>| {
        group.iter().any(|&top| {
            let is_child = |member: usize| parent(&files[member].module) == files[top].module;
            group.iter().all(|&member| member == top || is_child(member))
                && cycles(edges, |file| file != top && group.contains(&file)).is_empty()
        })
    };
    cycles(edges, |_| true).into_iter().filter(|group| !is_family(group)).collect()
}

#[test]
fn no_files_import_one_another_in_a_cycle_except_a_parent_and_its_own_children() {
    let files = files().into_iter().filter(|file| !file.is_test()).collect::<Vec<_>>();
    let edges = graph(&files);
    assert!(edges.iter().map(Vec::len).sum::<usize>() > 600, "too few imports were found");
    let is_from_parent = |(from, to): (usize, &Vec<usize>)| {
        to.iter().filter(|to| parent(&files[**to].module) == files[from].module).count()
    };
    let from_parents = edges.iter().enumerate().map(is_from_parent).sum::<usize>();
    assert!(from_parents > 100, "only {from_parents} imports of a child by its parent were found");
    let names = |group: Vec<usize>| {
        let inside = |from: &usize| {
            let to = edges[*from].iter().filter(|to| group.contains(to)).map(|to| files[*to].name.as_str());
            format!("{} imports {}", files[*from].name, to.collect::<Vec<_>>().join(", "))
        };
        format!("a cycle of {}:\n  {}", group.len(), group.iter().map(inside).collect::<Vec<_>>().join("\n  "))
    };
    none(forbidden_cycles(&files, &edges).into_iter().map(names).collect());
}

#[test]
fn a_parent_with_its_own_children_is_the_only_cycle_allowed() {
    let forbidden = |sources: &[(&str, &str)]| {
        let file = |(name, text): &(&str, &str)| File {
            name: (*name).into(),
            module: name.split('/').map(str::to_owned).collect(),
            text: (*text).into(),
        };
        let files = sources.iter().map(file).collect::<Vec<_>>();
        forbidden_cycles(&files, &graph(&files)).len()
    };
    // A chain, and a parent that uses its children, which use it.
    assert_eq!(forbidden(&[("a", "use crate::b::B;\n"), ("b", "use crate::c::C;\n"), ("c", "")]), 0);
    assert_eq!(forbidden(&[("a", "use b::B;\n"), ("a/b", "use super::c::C;\n"), ("a/c", "use super::A;\n")]), 0);
    // Two children that use one another, with and without their parent.
    assert_eq!(forbidden(&[("a", ""), ("a/b", "use super::c::C;\n"), ("a/c", "use super::b::B;\n")]), 1);
    let children = [("a/b", "use super::{A, c::C};\n"), ("a/c", "use super::b::B;\n")];
    assert_eq!(forbidden(&[("a", "fn f() { b::g() }\n"), children[0], children[1]]), 1);
    // A grandchild that uses the grandparent, which reaches it through its own child.
    let grandchild = ("a/b/c", "use crate::a::A;\n");
    assert_eq!(forbidden(&[("a", "pub use self::b::B;\n"), ("a/b", "use c::C;\n"), grandchild]), 1);
    assert_eq!(forbidden(&[("a", "pub use self::b::B;\n"), ("a/b", ""), grandchild]), 0);
    // A file of another room in the cycle of a parent and its child.
    let stranger = ("d", "use crate::a::A;\n");
    assert_eq!(forbidden(&[("a", "use b::B;\n"), ("a/b", "use crate::d::D;\n"), stranger]), 1);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let silent = files().into_iter().filter(|file| !file.text.starts_with("//! "));
    none(silent.map(|file| format!("{}:1 does not begin with //!", file.name)).collect());
}

#[test]
fn no_file_has_more_than_400_lines_before_its_tests() {
    let long = files().into_iter().filter(|file| file.code().len() > LINES);
    none(long.map(|file| format!("{}:{} is its last line of code", file.name, file.code().len())).collect());
}

#[test]
fn no_unwrap_and_no_expect_outside_tests() {
    none(lines_with(&[".unwrap()", ".expect("], |_| true));
}

/// Decisions are made on types and codes: another program, or the next version, words its messages in another way.
#[test]
fn no_decision_is_made_on_the_text_of_a_message() {
    let messages =
        ["message", "reason", "summary", "error", "err", "failure", "fault", "trouble", "problem", "cause", "why"];
    let tests = ["starts_with", "ends_with", "contains", "eq_ignore_ascii_case"];
    let words = messages.iter().flat_map(|message| {
        tests.iter().flat_map(move |test| {
            ["", "()", ".to_string()", ".as_str()", ".message", ".message()"]
                .map(|more| format!("{message}{more}.{test}("))
        })
    });
    let words = words.collect::<Vec<_>>();
    none(lines_with(&words.iter().map(String::as_str).collect::<Vec<_>>(), |_| true));
}

#[test]
fn core_has_no_input_and_output_clock_logging_metrics_or_process_control() {
    let words = ["std::fs", "std::env", "std::io", "std::net", "std::process", "std::thread", "rustix", "tracing"];
    let clocks = ["::now(", "now_utc", "SystemTime", "prometheus", "random("];
    let words = words.into_iter().chain(clocks).collect::<Vec<_>>();
    // The failure points for tests are not in the shipped program.
    let is_core = |file: &File| CORE.contains(&file.room()) && file.room() != "fail";
    assert!(files().iter().filter(|file| is_core(file)).count() > 30);
    none(lines_with(&words, is_core));
}

#[test]
fn only_main_may_end_the_process() {
    none(lines_with(&["process::exit", "process::abort"], |file| file.room() != "main"));
}

#[test]
fn only_one_folder_uses_librdkafka_apart_from_the_check_of_its_settings_and_the_demo() {
    let others = ["src/config/property.rs", "src/command/demo.rs"];
    let is_other = |file: &File| {
        !file.name.starts_with("src/stream/kafka/")
            && !file.name.starts_with("src/stream/simulation/")
            && !others.contains(&file.name.as_str())
    };
    none(lines_with(&["rdkafka::"], is_other));
}

#[test]
fn only_one_file_writes_to_standard_output_and_standard_error() {
    let words = ["println!(", "print!(", "dbg!(", "io::stdout", "io::stderr", " stdout()", " stderr()"];
    // The log is the other thing that goes to standard error; it writes by itself what it is given.
    none(lines_with(&words, |file| !["src/command/output.rs", "src/service/logging.rs"].contains(&file.name.as_str())));
}

#[test]
fn only_one_file_decides_how_foreign_text_is_escaped() {
    none(lines_with(&["escape_debug", "escape_default", "escape_unicode"], |file| file.room() != "foreign"));
}

#[test]
fn the_manual_explains_each_code_of_a_condition_and_each_exit_code() {
    let manual = std::fs::read_to_string(root().join("docs/manual.md")).unwrap();
    let codes = anomaly::health::ConditionCode::ALL.iter().map(|code| format!("| `{}` | ", code.as_str()));
    let ends = [0, 64, 65, 66, 69, 70, 74, 75, 78].into_iter().map(|code| format!("| {code} | "));
    none(codes.chain(ends).filter(|row| !manual.contains(row)).collect());
}

/// Returns the places of these words in the program's code.
fn lines_with(words: &[&str], applies: impl Fn(&File) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in files().iter().filter(|file| applies(file)) {
        for (line, code) in file.code() {
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{line} says {word}", file.name));
            }
        }
    }
    found
}
