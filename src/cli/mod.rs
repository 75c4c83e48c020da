//! Flags and environment, and the configuration they make with the file.
//!
//! [`parse`] is pure: it takes the arguments and a look-up of the environment, and touches nothing else.
//! [`Settings::load`] then reads the file. Flags go over the environment, the environment over the file, the
//! file over the defaults. An empty variable counts as one that is not set. The admin token may also come as a
//! credential of systemd's: a file that only this process can read, which goes over the configuration's.

mod health;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use log::LevelFilter;

use crate::config::{self, AdminToken, Config, ConfigError, Engine, Refused};
use crate::escape::Escaped;

pub use self::health::{HealthUrl, NoUrl};

/// What `--help` prints: a screen of 24 lines of 80 columns.
pub const HELP: &str = "\
acerelay: one AceStream engine session per channel, shared by every player

Usage: acerelay [OPTIONS]

  --config FILE       read this file; else ./config.toml, else
                      /etc/acerelay/config.toml, else built-in defaults
  --listen ADDR:PORT  listen here; port 0 takes a free one
  --engine HOST:PORT  use this engine, not the file's; may be repeated
  --log-level LEVEL   error, warn, info, debug or trace
  --state-dir DIR     keep lists and channel numbers here ($STATE_DIRECTORY)
  --demo              use a simulated engine with a test picture and a film
  --check-config      check the configuration and exit
  --print-config      print the effective configuration as TOML and exit
  --health [URL]      ask a running acerelay: exit code 0 if it is well
  -V, --version       print the version and exit
  -h, --help          print this and exit

Environment, below the flags and above the file: ACERELAY_CONFIG,
ACERELAY_LISTEN, ACERELAY_ENGINES (HOST:PORT,HOST:PORT), ACERELAY_LOG_LEVEL,
ACERELAY_ADMIN_TOKEN (a DELETE must then present it; or systemd's credential
admin_token). A socket that systemd passes is served in place of --listen.

Exit codes: 0 done, 1 failed at work, 2 a wrong flag, variable or configuration.
";

/// What `--version` prints, without the line's end.
pub const VERSION: &str = concat!("acerelay ", env!("CARGO_PKG_VERSION"));

/// Where a configuration is looked for when none is named, the first that exists.
const SEARCHED: [&str; 2] = ["config.toml", "/etc/acerelay/config.toml"];

/// The name of the credential that holds the admin token, as in `LoadCredential=` of the unit (systemd.exec(5)).
const TOKEN_CREDENTIAL: &str = "admin_token";

/// What all variables of ours begin with.
const PREFIX: &str = "ACERELAY_";

/// The variables of ours that there are.
const VARIABLES: [&str; 5] =
    ["ACERELAY_CONFIG", "ACERELAY_LISTEN", "ACERELAY_ENGINES", "ACERELAY_LOG_LEVEL", "ACERELAY_ADMIN_TOKEN"];

/// What the program is asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve.
    Run(Settings),
    /// Read the configuration, say whether it is good, and end.
    CheckConfig(Settings),
    /// Print the effective configuration and end.
    PrintConfig(Settings),
    /// Ask a running proxy whether it is well, at this URL or where the configuration says that it listens, and end.
    Health(Settings, Option<HealthUrl>),
    /// Print [`HELP`] and end.
    PrintHelp,
    /// Print [`VERSION`] and end.
    PrintVersion,
}

/// Which engines a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineSource {
    /// Those of the configuration.
    Configured,
    /// The simulated one of `--demo`, in place of the configured ones.
    Demo,
}

/// Which file is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileSource {
    /// This one; it must be there.
    Named(PathBuf),
    /// The first of these that is there, or none.
    FirstOf(Vec<PathBuf>),
}

/// What flags and environment say, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Which file is read.
    pub file: FileSource,
    /// Which engines a run takes.
    pub engines: EngineSource,
    overrides: Overrides,
    /// Where what outlives the process is kept, if anywhere.
    state_dir: Option<PathBuf>,
    /// Where systemd puts the credential with the admin token, if it gives us any credentials.
    token_file: Option<PathBuf>,
}

/// What goes over the file, where it is `Some`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Overrides {
    listen: Option<SocketAddr>,
    engines: Option<Vec<Engine>>,
    log_level: Option<LevelFilter>,
    admin_token: Option<AdminToken>,
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Flags, environment, file and defaults together.
    pub config: Config,
    /// The file that was read, if there was one.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Reads the file and puts flags and environment over it. May be called again to read a changed file.
    ///
    /// # Errors
    ///
    /// When a named file is not there, and when a file that is there cannot be read or has mistakes.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let (mut config, file) = self.file.read()?;
        let Overrides { listen, engines, log_level, admin_token } = self.overrides.clone();
        replace(&mut config.server.listen, listen);
        replace(&mut config.engines, engines);
        replace(&mut config.log.level, log_level);
        config.state_dir.clone_from(&self.state_dir);
        let admin_token = match (admin_token, &self.token_file) {
            (None, Some(path)) => AdminToken::read(path)?,
            (token, _) => token,
        };
        if admin_token.is_some() {
            config.server.admin_token = admin_token;
        }
        Ok(Loaded { config, file })
    }
}

fn replace<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

impl FileSource {
    fn read(&self) -> Result<(Config, Option<PathBuf>), ConfigError> {
        match self {
            Self::Named(path) => Config::read(path).map(|config| (config, Some(path.clone()))),
            Self::FirstOf(paths) => {
                for path in paths {
                    match Config::read(path) {
                        Ok(config) => return Ok((config, Some(path.clone()))),
                        Err(error) if error.is_not_found() => {}
                        // A file that is there and wrong must not be passed over in silence.
                        Err(error) => return Err(error),
                    }
                }
                Ok((Config::default(), None))
            }
        }
    }
}

impl Loaded {
    /// The file's name for a person.
    fn source(&self) -> String {
        let name = self.file.as_deref().map(Path::display);
        name.map_or_else(|| "built-in defaults".to_owned(), |name| name.to_string())
    }

    /// What `--check-config` prints when all is well, without the line's end.
    #[must_use]
    pub fn report(&self) -> String {
        format!("{}: ok", self.source())
    }

    /// What `--print-config` prints: TOML that reads back to the same, but for the admin token, which is
    /// left out.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let source = self.source().replace(char::is_control, "?");
        format!("# {VERSION}: {source}, with flags and environment over it\n\n{}", self.config.to_toml())
    }
}

/// Why flags or environment are not taken.
#[derive(Debug)]
pub enum UsageError {
    /// A flag that there is not, without its value, or with one too many.
    Flag(lexopt::Error),
    /// A value that is not taken.
    Value {
        /// The flag or variable that has it.
        origin: &'static str,
        /// What is wrong and what is allowed.
        refused: Refused,
    },
    /// A value that is no UTF-8.
    NotUnicode {
        /// The flag or variable that has it.
        origin: &'static str,
    },
    /// A URL that cannot be asked.
    HealthUrl(NoUrl),
    /// Flags that contradict each other.
    Exclusive(&'static str, &'static str),
}

impl From<lexopt::Error> for UsageError {
    fn from(error: lexopt::Error) -> Self {
        Self::Flag(error)
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use lexopt::Error;
        match self {
            Self::Flag(Error::UnexpectedOption(flag)) => write!(f, "there is no flag {}", Escaped(flag))?,
            Self::Flag(Error::UnexpectedArgument(argument)) => {
                write!(f, "\"{}\" is no flag", Escaped(&argument.to_string_lossy()))?;
            }
            Self::Flag(Error::MissingValue { option: Some(flag) }) => write!(f, "{flag} needs a value")?,
            Self::Flag(Error::UnexpectedValue { option, .. }) => write!(f, "{option} takes no value")?,
            Self::Flag(other) => other.fmt(f)?,
            Self::Value { origin, refused } => return write!(f, "{origin}: {refused}"),
            Self::NotUnicode { origin } => return write!(f, "{origin}: the value is not UTF-8"),
            Self::HealthUrl(wrong) => return write!(f, "--health: {wrong}"),
            Self::Exclusive(one, other) => return write!(f, "{one} and {other} exclude each other"),
        }
        f.write_str("; acerelay --help names all flags")
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments (without the program's name) and the environment through `variable`.
///
/// # Errors
///
/// For an unknown flag and for a malformed value of a flag or a variable. `--help` and `--version` come
/// before whatever follows them, and before the environment.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, UsageError> {
    let mut command: fn(Settings) -> Command = Command::Run;
    let mut health = None;
    let mut file = None;
    let mut state_dir = None;
    let mut engines = EngineSource::Configured;
    let mut listed = Vec::new();
    let mut flags = Overrides::default();

    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        use lexopt::Arg::{Long, Short};
        match argument {
            Long("config") => file = Some(PathBuf::from(parser.value()?)),
            Long("listen") => flags.listen = Some(flag(&mut parser, "--listen", config::listen)?),
            Long("engine") => listed.push(flag(&mut parser, "--engine", Engine::from_str)?),
            Long("log-level") => flags.log_level = Some(flag(&mut parser, "--log-level", config::level)?),
            Long("state-dir") => state_dir = Some(PathBuf::from(parser.value()?)),
            Long("demo") => engines = EngineSource::Demo,
            Long("check-config") => command = Command::CheckConfig,
            Long("print-config") => command = Command::PrintConfig,
            Long("health") => health = Some(health_url(&mut parser)?),
            Short('h') | Long("help") => return Ok(Command::PrintHelp),
            Short('V') | Long("version") => return Ok(Command::PrintVersion),
            other => return Err(other.unexpected().into()),
        }
    }
    if !listed.is_empty() {
        if engines == EngineSource::Demo {
            return Err(UsageError::Exclusive("--demo", "--engine"));
        }
        flags.engines = Some(checked(listed, "--engine")?);
    }

    let environment = Environment(variable);
    let overrides = Overrides {
        listen: flags.listen.or(environment.read("ACERELAY_LISTEN", config::listen)?),
        engines: flags.engines.or(environment.read("ACERELAY_ENGINES", engine_list)?),
        log_level: flags.log_level.or(environment.read("ACERELAY_LOG_LEVEL", config::level)?),
        admin_token: environment.read("ACERELAY_ADMIN_TOKEN", AdminToken::from_str)?,
    };
    let file = file.or(environment.get("ACERELAY_CONFIG").map(PathBuf::from));
    let credentials = environment.get("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    let settings = Settings {
        file: file
            .map_or_else(|| FileSource::FirstOf(SEARCHED.map(PathBuf::from).to_vec()), FileSource::Named),
        engines,
        overrides,
        state_dir: state_dir.or_else(|| environment.first_directory("STATE_DIRECTORY")),
        token_file: credentials.map(|directory| directory.join(TOKEN_CREDENTIAL)),
    };
    Ok(match health {
        Some(url) => Command::Health(settings, url),
        None => command(settings),
    })
}

/// The URL behind `--health`, if there is one: what follows and is no flag.
fn health_url(parser: &mut lexopt::Parser) -> Result<Option<HealthUrl>, UsageError> {
    let text = match parser.optional_value() {
        Some(text) => Some(text),
        None => parser.raw_args()?.next_if(|next| !next.to_string_lossy().starts_with('-')),
    };
    let read = |text: OsString| {
        let text = text.to_str().ok_or(UsageError::NotUnicode { origin: "--health" })?;
        text.parse().map_err(UsageError::HealthUrl)
    };
    text.map(read).transpose()
}

/// What a warning says of variables at most: more are some program's that names its own so.
const MAX_UNKNOWN: usize = 10;

/// Names the variables of this environment that look as if they were meant for us and are not ours: a misspelt one would
/// else pass in silence. Not an error, since others set such, too: Kubernetes does for a service of our name.
#[must_use]
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> Option<String> {
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    let mut unknown: Vec<_> =
        names.filter(|name| name.starts_with(PREFIX) && !VARIABLES.contains(&name.as_str())).collect();
    unknown.sort_unstable();
    let more = unknown.len().saturating_sub(MAX_UNKNOWN);
    unknown.truncate(MAX_UNKNOWN);
    let list: Vec<_> = unknown.iter().map(|name| Escaped(name).to_string()).collect();
    let list = list.join(", ") + &if more > 0 { format!(" and {more} more") } else { String::new() };
    (!unknown.is_empty())
        .then(|| format!("In the environment nothing here reads {list}; there are {}", VARIABLES.join(", ")))
}

/// The value of the flag that was just read.
fn flag<T>(
    parser: &mut lexopt::Parser,
    origin: &'static str,
    read: impl Fn(&str) -> Result<T, Refused>,
) -> Result<T, UsageError> {
    value(&parser.value()?, origin, read)
}

fn value<T>(
    text: &OsString,
    origin: &'static str,
    read: impl Fn(&str) -> Result<T, Refused>,
) -> Result<T, UsageError> {
    let text = text.to_str().ok_or(UsageError::NotUnicode { origin })?;
    read(text).map_err(|refused| UsageError::Value { origin, refused })
}

/// Engines between commas.
fn engine_list(text: &str) -> Result<Vec<Engine>, Refused> {
    let engines = text.split(',').map(|part| part.trim().parse()).collect::<Result<Vec<_>, _>>()?;
    config::check_engines(&engines).map_err(|conflict| conflict.refused)?;
    Ok(engines)
}

fn checked(engines: Vec<Engine>, origin: &'static str) -> Result<Vec<Engine>, UsageError> {
    match config::check_engines(&engines) {
        Ok(()) => Ok(engines),
        Err(conflict) => Err(UsageError::Value { origin, refused: conflict.refused }),
    }
}

/// The environment; an empty variable is none, as compose files like to set them.
struct Environment<F>(F);

impl<F: Fn(&str) -> Option<OsString>> Environment<F> {
    fn get(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    /// The first of the directories that a service manager names (systemd.exec(5) puts colons between them).
    fn first_directory(&self, name: &str) -> Option<PathBuf> {
        let directories = self.get(name)?;
        let first = directories.as_encoded_bytes().split(|byte| *byte == b':').next()?;
        Some(PathBuf::from(OsStr::from_bytes(first))).filter(|path| path.is_absolute())
    }

    fn read<T>(
        &self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, Refused>,
    ) -> Result<Option<T>, UsageError> {
        self.get(name).map(|text| value(&text, name, read)).transpose()
    }
}

#[cfg(test)]
mod tests;
