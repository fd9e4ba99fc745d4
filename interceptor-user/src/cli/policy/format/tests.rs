use std::os::unix::fs::{PermissionsExt as _, symlink};

use interceptor_core::policy;
use proptest::prelude::*;

use super::*;

fn form(text: &str) -> String {
    formatted("a.yaml", text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn arguments(paths: &[&Path], check: bool) -> FormatArgs {
    FormatArgs {
        paths: paths.iter().map(|path| path.to_path_buf()).collect(),
        check,
        stdin: false,
    }
}

const LOOSE: &str = "# why
kind:   Rule
name: r   # the name
spec:
    match:
        statements:   [ DROP,TRUNCATE ]
        users:
        - 'a'
        - \"*b\"
    then: {deny:   'no'}
";

const FORMED: &str = "# why
kind: Rule
name: r # the name
spec:
  match:
    statements: [DROP, TRUNCATE]
    users:
      - \"a\"
      - \"*b\"
  then: {deny: \"no\"}
";

#[test]
fn a_file_gets_the_one_form() {
    assert_eq!(form(LOOSE), FORMED);
    assert_eq!(form(&LOOSE.replace('\n', "\r\n")), FORMED);
    assert_eq!(form(FORMED), FORMED);
}

#[test]
fn files_are_replaced_whole_with_their_mode_and_behind_their_links() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("tests")).unwrap();
    for name in ["rules.yaml", "tests/t.yml", ".hidden.yaml", "notes.txt"] {
        fs::write(at(name), LOOSE).unwrap();
    }
    fs::set_permissions(at("rules.yaml"), Permissions::from_mode(0o640)).unwrap();
    fs::write(at("real"), LOOSE).unwrap();
    symlink("real", at("link.yaml")).unwrap();
    let mut out = Vec::new();
    let checked = run(&arguments(&[directory.path()], true), &mut out);
    assert!(
        matches!(checked, Err(CliError::Unformatted(3))),
        "{checked:?}"
    );
    assert_eq!(fs::read_to_string(at("rules.yaml")).unwrap(), LOOSE);

    let mut out = Vec::new();
    run(&arguments(&[directory.path()], false), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap().lines().count(), 3);
    for name in ["rules.yaml", "tests/t.yml", "real"] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), FORMED, "{name}");
    }
    assert!(fs::symlink_metadata(at("link.yaml")).unwrap().is_symlink());
    let mode = fs::metadata(at("rules.yaml")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    for name in [".hidden.yaml", "notes.txt"] {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), LOOSE, "{name}");
    }
    let names = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(names, 6, "something was left behind");

    let mut out = Vec::new();
    run(&arguments(&[directory.path()], true), &mut out).unwrap();
    assert_eq!(out, b"");
}

#[test]
fn what_is_broken_or_no_policy_is_not_touched_and_the_rest_is_formed() {
    let directory = tempfile::tempdir().unwrap();
    let broken = [
        ("a.yaml", "kind: Rule\nname:   r\nspec: {", "a.yaml:"),
        ("b.yaml", "services:   {web: {}}\n", "b.yaml:1:1"),
        (
            "c.yaml",
            "kind: Rule\nname:   r\nspec: &x {}\n",
            "c.yaml:3:",
        ),
    ];
    for (name, text, _) in broken {
        fs::write(directory.path().join(name), text).unwrap();
    }
    fs::write(directory.path().join("d.yaml"), b"# a\n# \xff").unwrap();
    fs::write(directory.path().join("good.yaml"), LOOSE).unwrap();
    let mut out = Vec::new();
    let error = run(&arguments(&[directory.path()], false), &mut out).unwrap_err();
    let error = error.to_string();
    for (name, text, place) in broken {
        assert!(error.contains(place), "{place} in {error}");
        let kept = fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(kept, text);
    }
    assert!(error.contains("d.yaml: line 2 is not UTF-8"), "{error}");
    let good = fs::read_to_string(directory.path().join("good.yaml")).unwrap();
    assert_eq!(good, FORMED);
}

/// Every policy file of the repository: the examples, and the fixtures that are YAML at all.
#[test]
fn files_of_people_are_formed_once_and_say_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for folder in ["policies", "interceptor-core/tests"] {
        collect(&root.join(folder), 0, &mut files).unwrap();
    }
    let mut formed = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let source = Source {
            file: "a.yaml",
            text: &text,
        };
        if Form::read(source).is_ok() {
            assert_eq!(form(&form(&text)), form(&text), "{}", file.display());
            formed += 1;
        }
    }
    assert!(formed >= 10, "only {formed} files were formed");
}

/// A parser that tries each bracket in two ways would take until tomorrow.
#[test]
fn the_deepest_that_may_be_takes_no_time() {
    let started = std::time::Instant::now();
    for (open, close) in [("[", "]"), ("{a: ", "}"), ("- ", ""), ("[{a: ", "}]")] {
        let levels = open.matches(['[', '{', '-']).count();
        let depth = (policy::DEPTH_MAX - 1) / levels;
        let deep = format!("{}x{}", open.repeat(depth), close.repeat(depth));
        form(&format!("kind: Rule\nname: r\nspec:\n  {deep}\n"));
    }
    let large = LOOSE.to_owned() + &"---\nkind: Rule\nname: r\nspec: {a: [b, c]}\n".repeat(10_000);
    form(&large);
    assert!(started.elapsed().as_secs() < 60, "{:?}", started.elapsed());
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z_][a-z0-9_.*-]{0,12}",
        "'([a-z #:{}\\[\\],\"*&!|>%@`-]|'')*'",
        "\"([a-z #:{}\\[\\],'*&!|>%@`-]|\\\\\"|\\\\n|\\\\t|\\\\\\\\|\\\\u263a)*\"",
        "[0-9]{1,6}",
        Just("~".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        "(über|日本|ßa)[a-z]{0,40}",
    ]
}

fn flow() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 24, 5, |inner| {
        let entry = (scalar(), inner.clone()).prop_map(|(key, value)| format!("{key}: {value}"));
        prop_oneof![
            (
                prop::collection::vec(inner, 0..5),
                "[ ]{0,2}",
                any::<bool>()
            )
                .prop_map(|(list, gap, comma)| {
                    let comma = if comma && !list.is_empty() { "," } else { "" };
                    format!("[{gap}{}{comma}{gap}]", list.join(&format!(",{gap} ")))
                }),
            (prop::collection::vec(entry, 0..4), "[ ]{0,2}")
                .prop_map(|(map, gap)| format!("{{{gap}{}{gap}}}", map.join(&format!(",{gap} ")))),
        ]
    })
}

/// Lines of a document's `spec`, at an indentation.
fn block() -> impl Strategy<Value = Vec<String>> {
    let comment = prop_oneof![Just(String::new()), "  # [a-z: '\"{]{0,20}", " #[a-z]{0,4}"];
    let leaf =
        (flow(), comment.clone()).prop_map(|(flow, comment)| vec![format!("{flow}{comment}")]);
    leaf.prop_recursive(3, 20, 4, move |inner| {
        let indent = |lines: Vec<String>, by: usize| -> Vec<String> {
            let lead = " ".repeat(by);
            lines
                .into_iter()
                .map(|line| format!("{lead}{line}"))
                .collect()
        };
        let entries = prop::collection::vec(("[a-zA-Z]{1,8}", inner.clone(), 1_usize..5), 1..4);
        let mapping = (entries, comment.clone()).prop_map(move |(entries, comment)| {
            let mut lines = vec![String::new()];
            for (index, (key, value, by)) in entries.into_iter().enumerate() {
                lines.push(format!("{key}{index}:{comment}"));
                lines.extend(indent(value, by));
            }
            lines
        });
        let list = prop::collection::vec(inner, 1..4).prop_map(move |entries| {
            let mut lines = vec![String::new()];
            for entry in entries {
                lines.push("-".to_owned());
                lines.extend(indent(entry, 2));
                lines.push("# between".to_owned());
            }
            lines
        });
        let text = prop::collection::vec("[a-z#:]{0,10}( [a-z#:]{1,10}){0,20}", 1..4).prop_map(
            move |lines| {
                let mut all = vec!["|".to_owned()];
                all.extend(indent(lines, 2));
                all
            },
        );
        prop_oneof![mapping, list, text]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in a file that can be read: the formed file is in form, and nothing was refused
    /// for a change of meaning that the formatter would have made without a word.
    #[test]
    fn the_form_is_reached_at_once(lines in block(), gap in "\n{0,3}") {
        let spec: String = lines.iter().map(|line| format!("  {line}\n")).collect();
        let text = format!("kind: Rule{gap}\nname: r\nspec:\n{spec}---\n# two\nkind: Mask\nname: m\nspec: {{}}\n");
        if Form::read(Source { file: "a.yaml", text: &text }).is_err() {
            return Ok(());
        }
        match formatted("a.yaml", &text) {
            Ok(once) => prop_assert_eq!(formatted("a.yaml", &once).unwrap(), once, "{}", text),
            Err(error) => prop_assert!(false, "{}\n{}\n---\n{:?}", error, text, pretty_yaml::format_text(&text, &options())),
        }
    }

    #[test]
    fn no_text_breaks_the_formatter(text in "(?s)kind: Rule\nname: r\nspec:.{0,100}") {
        let _ = formatted("a.yaml", &text);
    }
}
