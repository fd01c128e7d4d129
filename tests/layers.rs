//! The order of the layers in each package's lib.rs, kept: a module uses only modules to its left. The
//! root package knows nothing of tch, its program does not link libtorch, and no file is too long to be
//! read at once.

#![expect(clippy::unwrap_used, reason = "a test; clippy allows it only inside #[test] functions")]

use std::fs;
use std::path::{Path, PathBuf};

/// Longer files are split.
const MOST_LINES: usize = 450;

#[test]
fn a_module_uses_only_modules_to_its_left() {
    let mut wrong = Vec::new();
    for package in packages() {
        let layers = layers(&package);
        for (file, text) in files(&package) {
            let path = module_path(&package, &file);
            // lib.rs only names the modules; main.rs is the program on top, build.rs no part of it.
            let Some(own) = path.first().filter(|own| *own != "build") else { continue };
            let Some(rank) = rank(&layers, own) else {
                wrong.push(format!("{}: '{own}' is in no layer of its lib.rs", file.display()));
                continue;
            };
            for used in uses(&tokens(&text), path.len()) {
                let allowed = match self::rank(&layers, &used) {
                    _ if used == *own => true,
                    Some(other) => other < rank,
                    None => false,
                };
                if !allowed {
                    wrong.push(format!("{}: {own} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "against the order of the layers:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_is_in_a_layer() {
    for package in packages() {
        let layers = layers(&package);
        let text = fs::read_to_string(package.join("lib.rs")).unwrap();
        let modules: Vec<_> = text
            .lines()
            .filter_map(|l| {
                l.strip_prefix("pub mod ").or(l.strip_prefix("mod "))?.strip_suffix(';')
            })
            .collect();
        assert!(modules.len() >= 7, "{modules:?}");
        for module in modules {
            let lib = package.join("lib.rs");
            assert!(
                rank(&layers, module).is_some(),
                "'{module}' is in no layer of {}",
                lib.display()
            );
        }
    }
}

#[test]
fn the_root_package_knows_nothing_of_tch() {
    for (file, text) in files(&source()) {
        for word in tokens(&text) {
            let stranger = ["tch", "torch_sys", "detect_torch"].contains(&word.as_str());
            assert!(!stranger, "{} mentions {word}", file.display());
        }
    }
}

#[test]
fn the_program_needs_no_libtorch() {
    // The names of needed libraries stand in the file as they are.
    let program = fs::read(env!("CARGO_BIN_EXE_detect")).unwrap();
    let names = |library: &[u8]| program.windows(library.len()).any(|w| w == library);
    assert!(names(b"libc.so.6\0"), "the C library would be found, so libtorch would be too");
    assert!(!names(b"libtorch_cpu.so\0") && !names(b"libc10.so\0"));
}

#[test]
fn no_file_is_too_long() {
    for file in rust_files(&source()) {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < MOST_LINES, "{} has {lines} lines", file.display());
    }
}

/// The layers as the documentation of a package's lib.rs gives them, from the lowest to the highest.
fn layers(package: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(package.join("lib.rs")).unwrap();
    let lines: Vec<_> = text.lines().filter(|l| l.starts_with("//!") && l.contains("->")).collect();
    assert_eq!(lines.len(), 1, "one line of {} gives the order", package.display());
    let order = lines[0].trim_start_matches("//!").trim().trim_matches('`');
    let names = |layer: &str| layer.split('|').map(|m| m.trim().to_owned()).collect();
    // `a, b -> c` is three layers; `a | b` is one, in which none uses the other.
    order.split("->").flat_map(|part| part.split(',')).map(names).collect()
}

fn rank(layers: &[Vec<String>], module: &str) -> Option<usize> {
    layers.iter().position(|layer| layer.iter().any(|m| m == module))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The source folders of all packages, the root's first.
fn packages() -> [PathBuf; 3] {
    [source(), source().join("torch"), source().join("kernel")]
}

/// The files of a package with their text: the root's folder has the others in it. Tests of a package are no part.
fn files(package: &Path) -> Vec<(PathBuf, String)> {
    let [root, others @ ..] = packages();
    let own = |file: &PathBuf| {
        let other = package == root && others.iter().any(|other| file.starts_with(other));
        !other && !file.starts_with(package.join("tests"))
    };
    rust_files(package)
        .into_iter()
        .filter(own)
        .map(|file| (file.clone(), fs::read_to_string(&file).unwrap()))
        .collect()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
    files
}

/// `src/a/b.rs` is `a::b`, `src/a/mod.rs` is `a`; `src/lib.rs` and `src/main.rs` are the root, without names.
fn module_path(package: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(package).unwrap().with_extension("");
    let mut names: Vec<_> = inside.iter().map(|n| n.to_str().unwrap().to_owned()).collect();
    if ["mod", "lib", "main"].contains(&names.last().unwrap().as_str()) {
        names.pop();
    }
    names
}

/// The words and marks of Rust code, without comments and literals; `::` is one mark.
fn tokens(text: &str) -> Vec<String> {
    let code: Vec<char> = text.chars().collect();
    let at = |i: usize| code.get(i).copied().unwrap_or('\0');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut i = 0;
    while i < code.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < code.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            // Raw bytes and raw C texts are raw texts behind one letter.
            'b' | 'c' if at(i + 1) == 'r' && ['"', '#'].contains(&at(i + 2)) => i += 1,
            'r' if at(i + 1) == '"' || (at(i + 1) == '#' && ['"', '#'].contains(&at(i + 2))) => {
                let hashes = code[i + 1..].iter().take_while(|&&c| c == '#').count();
                let end: String = format!("\"{}", "#".repeat(hashes));
                let end: Vec<char> = end.chars().collect();
                i += hashes + 2;
                while i < code.len() && !code[i..].starts_with(&end) {
                    i += 1;
                }
                i += end.len();
            }
            '"' => {
                i += 1;
                while i < code.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A character; a lifetime has no closing quote.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < code.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            ':' if at(i + 1) == ':' => {
                found.push("::".to_owned());
                i += 2;
            }
            c if word(c) => {
                while word(at(i)) {
                    i += 1;
                }
                found.push(code[start..i].iter().collect());
            }
            c => {
                if !c.is_whitespace() {
                    found.push(c.to_string());
                }
                i += 1;
            }
        }
    }
    found
}

/// The top-level modules that code `depth` modules below the root uses, by `crate::` or by `super::`.
fn uses(tokens: &[String], depth: usize) -> Vec<String> {
    let at = |i: usize| tokens.get(i).map_or("", String::as_str);
    let mut used = Vec::new();
    let mut braces = 0;
    // At how many braces each inline module (`mod tests {`) was opened.
    let mut inline: Vec<usize> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match at(i) {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                if inline.last() == Some(&braces) {
                    inline.pop();
                }
            }
            "mod" if at(i + 2) == "{" => inline.push(braces),
            "crate" if at(i + 1) == "::" && at(i.wrapping_sub(1)) != "$" => {
                used.extend(names(&tokens[i + 2..]));
                i += 1;
            }
            "super" if at(i + 1) == "::" => {
                let mut up = 1;
                while at(i + 2) == "super" && at(i + 3) == "::" {
                    up += 1;
                    i += 2;
                }
                if up >= depth + inline.len() {
                    used.extend(names(&tokens[i + 2..]));
                }
                i += 1;
            }
            _ => {}
        }
        i += 1;
    }
    used
}

/// The first names of what follows `crate::`: `a`, or `a` and `b` of `{a::x, b}`.
fn names(tokens: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    if tokens[0] != "{" {
        // A macro of this crate (`crate::fail!`) lies at the root, whatever module wrote it.
        if tokens.get(1).is_none_or(|t| t != "!") {
            found.push(tokens[0].clone());
        }
        return found;
    }
    let (mut depth, mut first) = (0, true);
    for token in tokens {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => first = true,
            name if depth == 1 && first => {
                found.push(name.to_owned());
                first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

#[test]
fn uses_are_found_in_every_form() {
    let found = |code: &str, depth| uses(&tokens(code), depth);
    assert_eq!(found("use crate::data::{image, coco};", 1), ["data"]);
    assert_eq!(found("use crate::{cli, data::{a, b}, eval};", 1), ["cli", "data", "eval"]);
    assert_eq!(found("fn f() { crate::nms::nms(crate::cli::x) }", 1), ["nms", "cli"]);
    assert_eq!(found("use super::cli;", 1), ["cli"]);
    assert_eq!(found("use super::cli;", 2), [""; 0]);
    assert_eq!(found("use super::super::cli;", 2), ["cli"]);
    assert_eq!(found("mod tests { use super::*; } use super::cli;", 1), ["cli"]);
    assert_eq!(found("mod tests { use super::super::cli; }", 1), ["cli"]);
    // Not uses: comments, texts, characters that look like texts, the macros of the root.
    assert_eq!(
        found(
            "// crate::cli\n\"crate::\\\"cli\" r#\"crate::cli\"# br#\"{\"# b'{' '\"' crate::fail!(x)",
            1
        ),
        [""; 0]
    );
    assert_eq!(found("fn f<'a>(x: &'a str) { crate::cli::f('\\'') }", 1), ["cli"]);
}
