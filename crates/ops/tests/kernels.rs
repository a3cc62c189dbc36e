//! What launchers declare with `kernels!` against the kernels' own signatures, and structs that go to the GPU against
//! their namesakes there: by their text, so that it needs neither a GPU nor a CUDA toolkit.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The types of the arguments, or the fields, and their names.
type Named = Vec<(String, String)>;

/// A folder of an operation: its Rust and its CUDA without comments.
struct Op {
    name: String,
    rust: String,
    cuda: String,
}

fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| line.split("//").next().unwrap());
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Every folder of `src`, with all files that end in `.rs` and `.cu`.
fn ops() -> Vec<Op> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let folders = entries(&src).into_iter().filter(|path| path.is_dir());
    let ops = folders.map(|folder| {
        let text = |extension: &str| -> String {
            let mut files = entries(&folder);
            files.retain(|path| path.extension().is_some_and(|own| own == extension));
            let texts = files.iter().map(std::fs::read_to_string);
            texts.map(|text| without_comments(&text.unwrap())).collect()
        };
        Op {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            rust: text("rs"),
            cuda: text("cu").replace("\\\n", " "),
        }
    });
    ops.collect()
}

/// From behind the first `open` to the `close` that belongs to it, and what follows.
fn enclosed(text: &str, open: char, close: char) -> (&str, &str) {
    let start = text.find(open).unwrap() + open.len_utf8();
    let mut depth = 1;
    for (at, c) in text[start..].char_indices() {
        depth += i32::from(c == open) - i32::from(c == close);
        if depth == 0 {
            let end = start + at;
            return (&text[start..end], &text[end + close.len_utf8()..]);
        }
    }
    panic!("no {close} behind {}", &text[..text.len().min(60)]);
}

/// The parts between commas that stand in no brackets.
fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in list.char_indices() {
        match c {
            '(' | '[' | '<' => depth += 1,
            ')' | ']' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[start..]);
    let parts = parts.into_iter().map(str::trim);
    parts.filter(|part| !part.is_empty()).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// `text` with every occurrence of the word `from` replaced, and `##` taken away.
fn substituted(text: &str, from: &str, to: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let whole = !before.ends_with(is_word) && !after.starts_with(is_word);
        result += before;
        result += if whole { to } else { from };
        rest = after;
    }
    result + rest
}

/// The `.cu` file with its macros that define kernels expanded.
fn expanded(cuda: &str) -> String {
    let (defines, rest): (Vec<&str>, Vec<&str>) =
        cuda.lines().partition(|line| line.starts_with("#define "));
    let mut text = rest.join("\n");
    for define in defines {
        let name = define["#define ".len()..].split('(').next().unwrap();
        let (parameters, body) = enclosed(define, '(', ')');
        let calls = text.lines().filter_map(|line| {
            let both = format!("FOR_BOTH_TYPES({name})");
            if line == both {
                return Some(vec!["f32, float", "bf16, bf16"]);
            }
            let call = line.strip_prefix(name)?;
            call.starts_with('(')
                .then(|| vec![enclosed(call, '(', ')').0])
        });
        let calls: Vec<&str> = calls.flatten().collect();
        let mut kernels = String::new();
        for call in calls {
            let mut body = body.to_owned();
            let (parameters, arguments) = (parts(parameters), parts(call));
            assert_eq!(parameters.len(), arguments.len(), "{name}({call})");
            for (parameter, argument) in parameters.iter().zip(arguments) {
                body = body.replace(&format!("##{parameter}"), argument);
                body = substituted(&body, parameter, argument);
            }
            kernels += &body;
            kernels.push('\n');
        }
        text.push('\n');
        text += &kernels;
    }
    text
}

/// A C declaration: its type, `*` at the end, and its name.
fn declaration(text: &str) -> (String, String) {
    let name = text.rfind(|c| !is_word(c)).unwrap() + 1;
    let kind = text[..name].split_whitespace().collect::<Vec<_>>();
    (kind.join(" ").replace(" *", "*"), text[name..].to_owned())
}

/// The kernels of a `.cu` file by their names.
fn kernels(cuda: &str) -> BTreeMap<String, Named> {
    let text = expanded(cuda);
    let mut found = BTreeMap::new();
    for kernel in text.split("__global__ void").skip(1) {
        let kernel = kernel.trim_start();
        let kernel = match kernel.strip_prefix("__launch_bounds__") {
            Some(kernel) => enclosed(kernel, '(', ')').1.trim_start(),
            None => kernel,
        };
        let name = kernel.split('(').next().unwrap().trim().to_owned();
        let arguments = parts(enclosed(kernel, '(', ')').0);
        let arguments = arguments.into_iter().map(declaration).collect();
        assert!(found.insert(name, arguments).is_none());
    }
    found
}

/// One function of `kernels!`.
struct Declared {
    name: String,
    variant: Option<String>,
    arguments: Named,
}

fn declared(op: &Op) -> Vec<Declared> {
    let Some(start) = op.rust.find("kernels! { \"") else {
        return Vec::new();
    };
    let (block, _) = enclosed(&op.rust[start..], '{', '}');
    let (file, functions) = block.split_once(':').unwrap();
    let own = format!("\"{}\"", op.name);
    assert_eq!(file.trim(), own, "a kernel file has its folder's name");
    let functions = functions.split("fn ").skip(1).map(|function| {
        let (head, _) = function.split_once('(').unwrap();
        let head = head.split('[').next().unwrap();
        let (name, variant) = match head.split_once('<') {
            Some((name, variant)) => (name, Some(variant.trim_end_matches('>').to_owned())),
            None => (head, None),
        };
        let arguments = parts(enclosed(function, '(', ')').0).into_iter();
        let arguments = arguments.map(|argument| {
            let (name, kind) = argument.split_once(':').unwrap();
            let kind = kind.split('[').next().unwrap();
            (kind.trim().to_owned(), name.to_owned())
        });
        Declared {
            name: name.to_owned(),
            variant,
            arguments: arguments.collect(),
        }
    });
    functions.collect()
}

/// The suffixes of the implementations of `Variant`, with the type of their values.
fn variants(rust: &str) -> Vec<(String, String)> {
    let implementations = rust.split("const SUFFIX: &'static str = \"").skip(1);
    let variants = implementations.map(|text| {
        let (suffix, rest) = text.split_once('"').unwrap();
        let (_, value) = rest.split_once("type Value = ").unwrap();
        (
            suffix.to_owned(),
            value.split(';').next().unwrap().to_owned(),
        )
    });
    variants.collect()
}

/// The C type of what `kernels!` calls `kind`, in the kernel for `value`.
fn c_type(kind: &str, value: &str) -> String {
    let inner = |outer: &str| kind.strip_prefix(outer)?.strip_suffix('>');
    if let Some(kind) = inner("Option<") {
        return c_type(kind, value);
    }
    if let Some(kind) = inner("In<") {
        return format!("const {}*", c_type(kind, value));
    }
    if let Some(kind) = inner("Out<") {
        return format!("{}*", c_type(kind, value));
    }
    match kind {
        "E" | "V::Value" => c_type(value, value),
        "Int" | "i32" => "int".into(),
        "f32" => "float".into(),
        "f64" => "double".into(),
        "u32" => "uint32_t".into(),
        "u64" => "uint64_t".into(),
        "usize" => "size_t".into(),
        own => own.into(),
    }
}

#[test]
fn launchers_declare_the_kernels_arguments() {
    let ops = ops();
    let shared = ops.iter().find(|op| op.name == "cuda").unwrap();
    let both = variants(&shared.rust);
    assert_eq!(both.len(), 2);
    let mut all = BTreeSet::new();
    for op in &ops {
        let mut kernels = kernels(&op.cuda);
        for declared in declared(op) {
            // `V` stands for the operation's own variants too.
            let mut names = match declared.variant.as_deref() {
                None => vec![(String::new(), String::new())],
                Some(_) => both.clone(),
            };
            if declared.variant.as_deref() == Some("V") {
                names.extend(variants(&op.rust));
            }
            for (suffix, value) in names {
                let separator = if suffix.is_empty() { "" } else { "_" };
                let name = format!("{}{separator}{suffix}", declared.name);
                let Some(found) = kernels.remove(&name) else {
                    panic!("{}.cu has no kernel {name}", op.name);
                };
                let arguments = declared.arguments.iter();
                let expected = arguments.map(|(kind, name)| (c_type(kind, &value), name.clone()));
                assert_eq!(expected.collect::<Named>(), found, "{name}");
                assert!(all.insert(name.clone()), "two kernels are called {name}");
            }
        }
        assert!(kernels.is_empty(), "undeclared: {:?}", kernels.keys());
    }
    // Fewer would mean that this does not see them.
    assert!(all.len() >= 46, "{all:?}");
}

/// The fields of a C struct: pointers are 64-bit numbers in Rust.
fn c_fields(cuda: &str, name: &str) -> Option<Named> {
    let start = cuda.find(&format!("struct {name} {{"))?;
    let (body, _) = enclosed(&cuda[start..], '{', '}');
    let mut fields = Vec::new();
    for line in body
        .split(';')
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        let names = parts(line);
        let (kind, first) = declaration(names[0]);
        let base = kind.trim_end_matches('*').to_owned();
        let others = names[1..].iter().map(|name| match name.strip_prefix('*') {
            Some(name) => (format!("{base}*"), name.to_owned()),
            None => (base.clone(), (*name).to_owned()),
        });
        for (kind, name) in [(kind.clone(), first)].into_iter().chain(others) {
            let kind = if kind.ends_with('*') {
                "uint64_t"
            } else {
                kind.as_str()
            };
            fields.push((kind.to_owned(), name));
        }
    }
    Some(fields)
}

#[test]
fn structs_are_laid_out_as_on_the_gpu() {
    let mut compared = BTreeSet::new();
    for op in ops() {
        for text in op.rust.split("#[repr(C)]").skip(1) {
            let (_, text) = text.split_once("struct ").unwrap();
            let name = text.split_whitespace().next().unwrap();
            let fields = parts(enclosed(text, '{', '}').0).into_iter().map(|field| {
                let (name, kind) = field.split_once(':').unwrap();
                let name = name.trim().trim_start_matches("pub ");
                (c_type(kind.trim(), ""), name.to_owned())
            });
            let there = c_fields(&op.cuda, name);
            assert_eq!(Some(fields.collect()), there, "{name}");
            compared.insert(name.to_owned());
        }
        // What goes there by its bytes is one of those.
        for text in op.rust.split("unsafe impl DeviceRepr for ").skip(1) {
            let name = text.split_whitespace().next().unwrap();
            assert!(compared.contains(name), "{name} is not repr(C)");
        }
    }
    for name in ["Coefficients", "Entry", "Factors", "Rest", "Sizes"] {
        assert!(compared.contains(name), "{name} is not seen");
    }
}
