//! Which flags and variables there are, which goes over which, and the words for mistakes.

use std::collections::{BTreeSet, HashMap};
use std::fs;

use proptest::prelude::*;

use super::*;

fn parsed(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Command, UsageError> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    parse(arguments.iter().map(OsString::from), |name| variables.get(name).map(OsString::from))
}

fn settings(arguments: &[&str], variables: &[(&str, &str)]) -> Settings {
    match parsed(arguments, variables) {
        Ok(Command::Run(settings)) => settings,
        other => panic!("{arguments:?} should run: {other:?}"),
    }
}

/// A directory of this test alone, removed when it ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("acerelay-cli-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _: std::io::Result<()> = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn each_command_is_told_by_its_flag() {
    for flag in ["-h", "--help"] {
        assert_eq!(parsed(&[flag], &[]).expect(flag), Command::PrintHelp);
    }
    for flag in ["-V", "--version"] {
        assert_eq!(parsed(&[flag], &[]).expect(flag), Command::PrintVersion);
    }
    let check = parsed(&["--check-config"], &[]).expect("good");
    assert!(matches!(check, Command::CheckConfig(_)), "{check:?}");
    let print = parsed(&["--print-config"], &[]).expect("good");
    assert!(matches!(print, Command::PrintConfig(_)), "{print:?}");
    assert_eq!(settings(&["--demo"], &[]).engines, EngineSource::Demo);
    assert_eq!(settings(&[], &[]).engines, EngineSource::Configured);
}

#[test]
fn health_is_asked_for_at_a_url_or_where_the_proxy_listens() {
    let url = |arguments: &[&str]| match parsed(arguments, &[("ACERELAY_LISTEN", "0.0.0.0:81")]) {
        Ok(Command::Health(settings, url)) => {
            let url = url.map(Ok).unwrap_or_else(|| {
                let FileSource::FirstOf(_) = settings.file else { panic!("no file is named") };
                HealthUrl::of_listener(settings.overrides.listen.expect("the variable"))
            });
            url.expect("a port").to_string()
        }
        other => panic!("{arguments:?}: {other:?}"),
    };
    assert_eq!(url(&["--health"]), "http://127.0.0.1:81/healthz");
    assert_eq!(url(&["--health", "--listen", "127.0.0.1:82"]), "http://127.0.0.1:82/healthz");
    for arguments in [&["--health", "http://box:83"][..], &["--health=http://box:83", "--log-level", "info"]]
    {
        assert_eq!(url(arguments), "http://box:83/healthz");
    }
    for wrong in
        [&["--health", "box"][..], &["--health=https://box"], &["--health", "http://box", "http://b"]]
    {
        parsed(wrong, &[]).expect_err("no such URL");
    }
}

#[test]
fn variables_that_nobody_reads_are_named_in_one_line() {
    let unknown = |names: &[&str]| unknown_variables(names.iter().map(OsString::from));
    assert_eq!(unknown(&["PATH", "ACERELAY_ENGINES", "ACERELAY_LISTEN", "XACERELAY_X"]), None);
    assert!(VARIABLES.iter().all(|name| HELP.contains(name)) && unknown(&VARIABLES).is_none());
    let told = unknown(&["ACERELAY_PORT", "ACERELAY_LOGLEVEL", "ACERELAY_A\n"]).expect("three");
    let list =
        "nothing here reads ACERELAY_A\\n, ACERELAY_LOGLEVEL, ACERELAY_PORT; there are ACERELAY_CONFIG, ";
    assert!(told.contains(list), "{told}");
    let many: Vec<_> = (10..90).map(|number| format!("ACERELAY_{number}")).collect();
    let told = unknown(&many.iter().map(String::as_str).collect::<Vec<_>>()).expect("many");
    assert!(told.contains("ACERELAY_19 and 70 more;") && told.len() < 400, "{told}");
}

#[test]
fn help_comes_before_what_follows_it_and_before_a_bad_environment() {
    let command = parsed(&["--help", "--nonsense"], &[("ACERELAY_LISTEN", "x")]);
    assert_eq!(command.expect("help"), Command::PrintHelp);
}

#[test]
fn help_fits_a_screen_and_names_every_flag_and_variable() {
    assert!(HELP.lines().count() <= 24);
    for line in HELP.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let source = include_str!("mod.rs");
    let quoted = |before: &str| -> Vec<&str> {
        let rest = source.split(before).skip(1);
        rest.filter_map(|rest| rest.split_once('"').map(|(name, _)| name))
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphabetic() || b"-_".contains(&byte)))
            .filter(|name| !name.is_empty())
            .collect()
    };
    let flags = quoted("Long(\"");
    assert!(flags.len() >= 9, "{flags:?}");
    for flag in flags {
        assert!(HELP.contains(&format!("--{flag}")), "{flag}");
    }
    let variables = quoted("(\"ACERELAY_");
    assert!(variables.len() >= 5, "{variables:?}");
    for variable in variables {
        assert!(HELP.contains(&format!("ACERELAY_{variable}")), "{variable}");
    }
}

/// The words of a text that begin so, each once, in the order of the alphabet.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let is_inner = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let words = text.split(|character| !is_inner(character));
    words.filter(|word| word.starts_with(start) && word.len() > start.len()).collect()
}

#[test]
fn manual_and_completions_have_what_help_has() {
    let manual = include_str!("../../scripts/acerelay.1");
    let long = words(HELP, "--");
    assert!(long.len() >= 9 && long.contains("--log-level"), "{long:?}");
    // In the manual's language `Fl -help` stands for `--help`.
    let of_manual: BTreeSet<_> =
        manual.split("Fl -").skip(1).filter_map(|rest| rest.split([' ', '\n']).next()).collect();
    assert_eq!(of_manual, long.iter().map(|flag| &flag[2..]).collect());
    for flag in &long {
        let is_described = manual
            .lines()
            .any(|line| line.starts_with(".It") && line.contains(&format!("Fl {}", &flag[1..])));
        assert!(is_described, "{flag} has no paragraph of its own");
    }
    assert_eq!(words(manual, "ACERELAY_"), words(HELP, "ACERELAY_"));
    let codes = HELP.split_once("Exit codes: ").expect("they stand there").1;
    let codes: BTreeSet<_> =
        codes.split(|character: char| !character.is_ascii_digit()).filter(|code| !code.is_empty()).collect();
    assert_eq!(codes.len(), 3, "{codes:?}");
    let status = manual.split_once(".Sh EXIT STATUS").expect("a section").1;
    let of_manual = status.lines().filter_map(|line| line.strip_prefix(".It "));
    assert_eq!(of_manual.collect::<BTreeSet<_>>(), codes);

    for completion in [
        include_str!("../../scripts/completions/acerelay.bash"),
        include_str!("../../scripts/completions/_acerelay"),
    ] {
        // The comment at its head names --help, and that is in the list anyway.
        assert_eq!(words(completion, "--"), long);
    }
    let fish = include_str!("../../scripts/completions/acerelay.fish");
    let of_fish = fish.split(" -l ").skip(1).filter_map(|rest| rest.split(' ').next());
    assert_eq!(of_fish.collect::<BTreeSet<_>>(), long.iter().map(|flag| &flag[2..]).collect());
}

#[test]
fn mistakes_are_told_in_one_sentence() {
    type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);
    let cases: [Case; 16] = [
        (&["--lisen", "x"], &[], "there is no flag --lisen; acerelay --help names all flags"),
        (&["-x"], &[], "there is no flag -x; acerelay --help names all flags"),
        (&["config.toml"], &[], "\"config.toml\" is no flag; acerelay --help names all flags"),
        (&["--listen"], &[], "--listen needs a value; acerelay --help names all flags"),
        (&["--demo=yes"], &[], "--demo takes no value; acerelay --help names all flags"),
        (
            &["--listen", ":8000"],
            &[],
            "--listen: \":8000\" is no IP address with a port; allowed is ADDRESS:PORT, such as \
             0.0.0.0:8000 for every IPv4 address or [::]:8000 for IPv6",
        ),
        (
            &["--engine", "10.0.0.1"],
            &[],
            "--engine: \"10.0.0.1\" is no engine; allowed is HOST:PORT, such as 127.0.0.1:6878 or \
             [::1]:6878",
        ),
        (&["--engine=a:1", "--engine=A:1"], &[], "--engine: a:1 is there twice; name each engine once"),
        (&["--engine=a:1", "--demo"], &[], "--demo and --engine exclude each other"),
        (
            &["--log-level", "loud"],
            &[],
            "--log-level: \"loud\" is no log level; allowed are error, warn, info, debug and trace",
        ),
        (
            &[],
            &[("ACERELAY_LOG_LEVEL", "off")],
            "ACERELAY_LOG_LEVEL: \"off\" is no log level; allowed are error, warn, info, debug and trace",
        ),
        (
            &[],
            &[("ACERELAY_LISTEN", "localhost:8000")],
            "ACERELAY_LISTEN: \"localhost:8000\" is no IP address with a port; allowed is ADDRESS:PORT, \
             such as 0.0.0.0:8000 for every IPv4 address or [::]:8000 for IPv6",
        ),
        (
            &[],
            &[("ACERELAY_ENGINES", "a:1,b:2,a:1")],
            "ACERELAY_ENGINES: a:1 is there twice; name each engine once",
        ),
        (
            &[],
            &[("ACERELAY_ENGINES", "a:1,,b:2")],
            "ACERELAY_ENGINES: \"\" is no engine; allowed is HOST:PORT, such as 127.0.0.1:6878 or \
             [::1]:6878",
        ),
        (
            &[],
            &[("ACERELAY_ENGINES", "a:1/x?y=:2")],
            "ACERELAY_ENGINES: \"a:1/x?y=:2\" is no engine; allowed is HOST:PORT, such as 127.0.0.1:6878 \
             or [::1]:6878",
        ),
        (
            &[],
            &[("ACERELAY_ADMIN_TOKEN", "two words")],
            "ACERELAY_ADMIN_TOKEN: no header can carry this token; allowed are 1 to 256 ASCII characters \
             without blanks",
        ),
    ];
    for (arguments, variables, message) in cases {
        let error = parsed(arguments, variables).expect_err(message);
        assert_eq!(error.to_string(), message, "{arguments:?} {variables:?}");
    }
}

#[test]
fn flags_go_over_the_environment_over_the_file_over_the_defaults() {
    let scratch = Scratch::new("precedence");
    let text = "[server]\nlisten = '1.1.1.1:1'\nadmin_token = 'f'\n[[engines]]\nhost = 'f'\nport = 1\n\
                [log]\nlevel = 'error'";
    let file = scratch.file("config.toml", text);
    let file = file.to_str().expect("ASCII");
    let variables = [
        ("ACERELAY_CONFIG", file),
        ("ACERELAY_LISTEN", "2.2.2.2:2"),
        ("ACERELAY_ENGINES", "e1:1, e2:2"),
        ("ACERELAY_LOG_LEVEL", "debug"),
        ("ACERELAY_ADMIN_TOKEN", "e"),
    ];
    let flags = [
        "--listen=3.3.3.3:3",
        "--engine",
        "c1:1",
        "--engine",
        "c2:2",
        "--engine=[::1]:3",
        "--log-level=TRACE",
    ];
    let shown = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut settings = settings(arguments, variables);
        if settings.file == settings_searching() {
            settings.file = FileSource::FirstOf(Vec::new());
        }
        let Config { server, engines, log, .. } = settings.load().expect("a good file").config;
        let engines: Vec<_> = engines.iter().map(Engine::authority).collect();
        let is_token = |token: &str| server.admin_token.as_ref().is_some_and(|ours| ours.matches(token));
        let token = ["e", "f"].into_iter().find(|token| is_token(token));
        format!("{} {} {} {}", server.listen, engines.join(","), log.level, token.unwrap_or("-"))
    };
    let empty = variables.map(|(name, _)| (name, ""));
    assert_eq!(shown(&[], &[]), "0.0.0.0:8000 127.0.0.1:6878 INFO -");
    assert_eq!(shown(&[], &empty), "0.0.0.0:8000 127.0.0.1:6878 INFO -");
    assert_eq!(shown(&["--config", file], &[]), "1.1.1.1:1 f:1 ERROR f");
    assert_eq!(shown(&[], &variables[..1]), "1.1.1.1:1 f:1 ERROR f");
    assert_eq!(shown(&[], &variables), "2.2.2.2:2 e1:1,e2:2 DEBUG e");
    assert_eq!(shown(&flags, &variables), "3.3.3.3:3 c1:1,c2:2,[::1]:3 TRACE e");
    assert_eq!(shown(&flags, &[]), "3.3.3.3:3 c1:1,c2:2,[::1]:3 TRACE -");
}

#[test]
fn a_credential_is_the_admin_token_unless_the_environment_has_one() {
    let scratch = Scratch::new("credential");
    let config = scratch.file("config.toml", "[server]\nadmin_token = 'of-the-file'");
    let config = config.to_str().expect("ASCII");
    let directory = scratch.0.to_str().expect("ASCII");
    let load = |variables: &[(&str, &str)]| settings(&["--config", config], variables).load();
    let check = |variables: &[(&str, &str)], expected: &str| {
        let token = load(variables).expect("good").config.server.admin_token.expect("a token");
        assert!(token.matches(expected), "{variables:?}: not {expected}");
    };
    let here = ("CREDENTIALS_DIRECTORY", directory);
    check(&[here], "of-the-file");
    for text in ["credential", "credential\n", "credential\r\n"] {
        scratch.file("admin_token", text);
        check(&[here], "credential");
        check(&[here, ("ACERELAY_ADMIN_TOKEN", "environment")], "environment");
    }
    check(&[], "of-the-file");
    check(&[("CREDENTIALS_DIRECTORY", "")], "of-the-file");
    // Somebody wanted a token: what is none must not leave the door open, nor be shown.
    for text in ["", "\n", "two words", "a\nb", "s\u{e4}cret"] {
        let path = scratch.file("admin_token", text);
        let message = format!(
            "{}:1: no header can carry this token; allowed are 1 to 256 ASCII characters without blanks",
            path.display()
        );
        assert_eq!(load(&[here]).expect_err(text).to_string(), message);
    }
    fs::remove_file(scratch.0.join("admin_token")).expect("it is there");
    fs::create_dir(scratch.0.join("admin_token")).expect("the name is free");
    let error = load(&[here]).expect_err("a directory is no token");
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

fn settings_searching() -> FileSource {
    FileSource::FirstOf(SEARCHED.map(PathBuf::from).to_vec())
}

#[test]
fn a_named_file_must_be_there() {
    let source = FileSource::Named("/nonexistent/c.toml".into());
    for settings in [
        settings(&["--config=/nonexistent/c.toml"], &[]),
        settings(&[], &[("ACERELAY_CONFIG", "/nonexistent/c.toml")]),
    ] {
        assert_eq!(settings.file, source);
        assert_eq!(
            settings.load().expect_err("it is not there").to_string(),
            "cannot read /nonexistent/c.toml: No such file or directory (os error 2)"
        );
    }
}

#[test]
fn without_a_named_file_the_first_that_is_there_is_read() {
    let scratch = Scratch::new("search");
    let absent = scratch.0.join("absent.toml");
    let good = scratch.file("good.toml", "[log]\nlevel = 'warn'");
    let bad = scratch.file("bad.toml", "[lok]");
    let first_of = |paths: &[&PathBuf]| {
        let mut settings = settings(&[], &[]);
        assert_eq!(settings.file, settings_searching());
        settings.file = FileSource::FirstOf(paths.iter().copied().cloned().collect());
        settings.load()
    };
    let loaded = first_of(&[&absent, &good, &bad]).expect("the good one");
    assert_eq!(loaded.config.log.level, LevelFilter::Warn);
    assert_eq!(loaded.report(), format!("{}: ok", good.display()));
    let loaded = first_of(&[&absent]).expect("the defaults");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.report(), "built-in defaults: ok");
    let error = first_of(&[&absent, &bad, &good]).expect_err("never passed over");
    assert!(matches!(error, ConfigError::Invalid(_)), "{error}");
}

#[test]
fn what_is_printed_reads_back_to_the_same() {
    let text = "[server]\nadmin_token = 'hunter2'\n[[engines]]\nname = 'a \"b\" \\ c'";
    let mut loaded = Loaded {
        config: Config::parse("test", text.as_bytes()).expect("good"),
        file: Some("odd\nname\".toml".into()),
    };
    let printed = loaded.to_toml();
    assert!(printed.contains("\n# admin_token is set, and not shown here\n"), "{printed}");
    assert!(!printed.contains("hunter2"), "{printed}");
    loaded.config.server.admin_token = None;
    assert_eq!(Config::parse("printed", printed.as_bytes()).expect("TOML"), loaded.config);
}

proptest! {
    #[test]
    fn no_argument_and_no_variable_makes_it_panic(
        arguments in prop::collection::vec(
            prop_oneof![any::<String>(), "--(listen|engine|log-level|config|demo)=?.{0,12}"], 0..5),
        text in any::<String>(),
    ) {
        let arguments = arguments.iter().map(OsString::from);
        let _: Result<Command, UsageError> = parse(arguments, |_| Some(OsString::from(&text)));
    }
}
