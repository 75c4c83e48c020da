//! Finds files that import each other, directly or round a longer way.
//!
//! A child may name what its parent has (`super::X`): the two are one room. All else counts, so a circle that leads
//! through a parent's re-export is found, too.

use std::collections::{BTreeMap, BTreeSet};

use super::code::Code;

/// A module by its path from the crate's root, as `["stream", "state"]`.
type Module = Vec<String>;

/// The module that a file `src/...` is; `None` for the roots of crates.
fn module_of(file: &str) -> Option<Module> {
    let inside = file.strip_prefix("src/")?.strip_suffix(".rs")?;
    let inside = inside.strip_suffix("/mod").unwrap_or(inside);
    let module: Module = inside.split('/').map(str::to_owned).collect();
    (module != ["lib"] && module != ["main"]).then_some(module)
}

/// Which module a path as it is written in `own` begins at, and what follows.
fn absolute(own: &Module, path: &str) -> Option<Module> {
    let mut segments = path.split("::").map(str::trim).filter(|segment| !segment.is_empty()).peekable();
    let mut found = match segments.next()? {
        "crate" => Module::new(),
        "self" => own.clone(),
        "super" => own[..own.len() - 1].to_vec(),
        _ => return None,
    };
    while segments.next_if_eq(&"super").is_some() {
        found.pop()?;
    }
    found.extend(segments.map(str::to_owned));
    Some(found)
}

/// The circles among these files, each as the files it leads through, with their texts.
pub(super) fn circles(files: &[(String, String)]) -> Vec<Vec<String>> {
    let modules: BTreeMap<Module, &str> =
        files.iter().filter_map(|(file, _)| Some((module_of(file)?, file.as_str()))).collect();
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (file, text) in files {
        let Some(own) = module_of(file) else { continue };
        let code = Code::new(text);
        for (offset, path) in code.relative_imports() {
            let Some(target) = absolute(&own, &path).filter(|_| offset < code.tests_start) else { continue };
            // The longest beginning of the path that is a file; what follows is something in it.
            let Some(module) = (1..=target.len())
                .rev()
                .map(|end| &target[..end])
                .find(|module| modules.contains_key(*module))
            else {
                continue;
            };
            if !own.starts_with(module) {
                arrows.entry(file).or_default().insert(modules[module]);
            }
        }
    }
    let mut found: Vec<Vec<String>> = Vec::new();
    for start in arrows.keys() {
        if found.iter().flatten().any(|file| file == start) {
            continue;
        }
        if let Some(way) = way_back(start, &arrows) {
            found.push(way.into_iter().map(str::to_owned).collect());
        }
    }
    found
}

/// The shortest way from a file back to itself, if there is one.
fn way_back<'a>(start: &'a str, arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Option<Vec<&'a str>> {
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut edge = vec![start];
    while !edge.is_empty() {
        let mut next = Vec::new();
        for file in edge {
            for &other in arrows.get(file).into_iter().flatten() {
                if other == start {
                    let mut way = vec![file];
                    while let Some(&before) = way.last().and_then(|last| came_from.get(last)) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                if other != file && !came_from.contains_key(other) {
                    came_from.insert(other, file);
                    next.push(other);
                }
            }
        }
        edge = next;
    }
    None
}

#[track_caller]
fn check(files: &[(&str, &str)], expected: &[&[&str]]) {
    let files: Vec<_> = files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect();
    assert_eq!(circles(&files), expected, "{files:?}");
}

#[test]
fn files_that_import_each_other_are_told() {
    check(
        &[
            ("src/a/x.rs", "use super::y::Y;"),
            ("src/a/y.rs", "fn f() { super::x::g(); }"),
            ("src/a/mod.rs", ""),
        ],
        &[&["src/a/x.rs", "src/a/y.rs"]],
    );
    check(
        &[
            ("src/a.rs", "use crate::{b::B, d};"),
            ("src/b/mod.rs", "use self::inner::I;"),
            ("src/b/inner.rs", "use super::super::c::C;"),
            ("src/c.rs", "use crate::a::{self, A};"),
            ("src/d.rs", ""),
        ],
        &[&["src/a.rs", "src/b/mod.rs", "src/b/inner.rs", "src/c.rs"]],
    );
}

#[test]
fn a_parent_with_its_child_and_what_only_tests_import_are_no_circle() {
    check(
        &[
            ("src/a.rs", "mod x;\nuse self::x::X;"),
            (
                "src/a/x.rs",
                "use super::A;\nuse crate::b::B;\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}",
            ),
            ("src/b.rs", "// use crate::a::A;\n"),
            ("src/c.rs", "use crate::a::A;"),
            ("src/lib.rs", "pub use crate::a::A;"),
        ],
        &[],
    );
}
