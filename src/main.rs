//! The `acerelay` program: reads flags, environment and file, runs the proxy until a signal.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use acerelay::app::App;
use acerelay::channels::keeper::Settings as ListSettings;
use acerelay::cli::{self, Command, EngineSource, HealthUrl, Settings};
use acerelay::config::{Channel, Config, Engine};
use acerelay::http::listener::Inherited;
use acerelay::id::{ContentKey, Digest};
use acerelay::logging::{self, LogFile};
use acerelay::notify::{self, Notifier};
use acerelay::sim::demo::{Demo, LIST};
use acerelay::threads::{self, SMALL_STACK_BYTES, Threads};
use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// A wrong flag, variable or configuration.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(env::args_os().skip(1), |name| env::var_os(name)) {
        Ok(command) => command,
        Err(error) => return fail(EXIT_USAGE, &error),
    };
    let outcome = match command {
        Command::PrintHelp => print(cli::HELP),
        Command::PrintVersion => print(&format!("{}\n", cli::VERSION)),
        Command::CheckConfig(settings) => match settings.load() {
            Ok(loaded) => print(&format!("{}\n", loaded.report())),
            Err(error) => return fail(EXIT_USAGE, &error),
        },
        Command::PrintConfig(settings) => match settings.load() {
            Ok(loaded) => print(&loaded.to_toml()),
            Err(error) => return fail(EXIT_USAGE, &error),
        },
        Command::Health(settings, url) => match url.map(Ok).unwrap_or_else(|| listener_url(&settings)) {
            Ok(url) => url.ask().map_err(Box::from).and_then(|()| print("ok\n")),
            Err(error) => return fail(EXIT_USAGE, &*error),
        },
        Command::Run(settings) => match (settings.load(), notify::passed_port()) {
            (Ok(loaded), Ok(port)) => run(&settings, loaded.config, port),
            (Err(error), _) => return fail(EXIT_USAGE, &error),
            (_, Err(error)) => return fail(EXIT_USAGE, &error),
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(1, &*error),
    }
}

/// Where a proxy with these settings can be asked.
fn listener_url(settings: &Settings) -> Result<HealthUrl, Box<dyn Error>> {
    Ok(HealthUrl::of_listener(settings.load()?.config.server.listen)?)
}

fn fail(code: u8, error: &dyn Error) -> ExitCode {
    // Nobody can be told when standard error is closed.
    let _told = writeln!(io::stderr(), "acerelay: {error}");
    ExitCode::from(code)
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

fn run(settings: &Settings, mut config: Config, port: Option<Inherited>) -> Result<(), Box<dyn Error>> {
    let log = logging::start(&config.log, env::var_os("JOURNAL_STREAM").as_deref())?;
    threads::log_panics();
    if let Some(unknown) = cli::unknown_variables(env::vars_os().map(|(name, _)| name)) {
        log::warn!("{unknown}");
    }
    let threads = Threads::new();
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let signals_handle = signals.handle();
    let told = watch_signals(signals, log.file.clone(), &threads)?;

    let demo = match settings.engines {
        EngineSource::Configured => None,
        EngineSource::Demo => {
            let demo = Demo::start()?;
            let address = demo.address();
            config.engines = vec![Engine::at(address.ip().into(), address.port())];
            config.channels = demo_channels()?;
            config.playlists.clear();
            config.epg.urls = vec![demo.guide_url().parse()?];
            config.tuner.enabled = true;
            // What is kept there belongs to the channels of the house.
            config.state_dir = None;
            Some(demo)
        }
    };
    if port.is_some() {
        log::info!("The service manager passes an open port; \"listen\" is not used");
    }
    let app = App::start(config, port)?;
    let address = app.address();
    let mut text = format!("Listening on http://{address}\n");
    if let Some(demo) = &demo {
        let host = if address.ip().is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { address.ip() };
        text.push_str(&demo.invitation(SocketAddr::new(host, address.port())));
    }
    print(&text)?;

    let mut notifier = Notifier::from_environment();
    if let Some(notifier) = &mut notifier {
        notifier.ready(app.headline());
    }
    let is_demo = demo.is_some();
    wait_for_the_end(&told, notifier.as_mut(), &app, || {
        if is_demo {
            log::info!("The demo keeps its own channel list");
        } else {
            reload_lists(settings, &app);
        }
    })?;
    log::info!("Shutting down");
    if let Some(notifier) = &notifier {
        notifier.stopping();
    }
    let outcome = app.shutdown();
    drop(demo);
    signals_handle.close();
    match outcome.and_then(|()| threads.join_all(std::time::Instant::now() + Duration::from_millis(200))) {
        Ok(()) => log::info!("Shut down"),
        Err(unfinished) => log::warn!("Shut down; {unfinished}"),
    }
    Ok(())
}

/// The channel list of the demo, as a configuration would say it.
fn demo_channels() -> Result<Vec<Channel>, Box<dyn Error>> {
    let mut channels = Vec::new();
    for (name, group, contents) in LIST {
        let key = |content: &Digest| ContentKey::from_query(None, [("id", content.to_string())]);
        let ids = contents.iter().map(key).collect::<Result<_, _>>()?;
        channels.push(Channel { name: name.to_owned(), group: group.to_owned(), ids, ..Channel::default() });
    }
    Ok(channels)
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Look at the channel list anew.
    Reload,
    /// End.
    Stop,
}

/// Reads the channel list of the configuration anew; one with mistakes changes nothing.
fn reload_lists(settings: &Settings, app: &App) {
    match settings.load() {
        Ok(loaded) => {
            let Config { channels, playlists, .. } = loaded.config;
            let (count, lists) = (channels.len(), playlists.len());
            log::info!(
                "The channel list is read anew: {count} channels and {lists} lists in the configuration"
            );
            app.reload_lists(ListSettings { channels, playlists });
        }
        Err(error) => {
            for line in error.to_string().lines() {
                log::error!("The channel list stays as it was: {line}");
            }
        }
    }
}

/// Waits for the signal to end. A service manager, if there is one, is kept informed meanwhile.
fn wait_for_the_end(
    told: &Receiver<Told>,
    mut notifier: Option<&mut Notifier>,
    app: &App,
    reload: impl Fn(),
) -> Result<(), RecvError> {
    loop {
        let next = match &mut notifier {
            Some(notifier) => match told.recv_timeout(notifier.interval()) {
                Err(RecvTimeoutError::Timeout) => {
                    notifier.beat(app.answers(), app.headline());
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return Err(RecvError),
                Ok(next) => next,
            },
            // Its sender lives as long as the handle of the signals is open.
            None => told.recv()?,
        };
        match next {
            Told::Reload => reload(),
            Told::Stop => return Ok(()),
        }
    }
}

/// Tells of the first signal; at the second one the process ends at once, as if it did not handle signals. SIGHUP ends
/// nothing: it has the log file opened anew, which may have been renamed, and the channel list read anew.
fn watch_signals(
    mut signals: Signals,
    log_file: Option<LogFile>,
    threads: &Threads,
) -> io::Result<Receiver<Told>> {
    // Room for the end behind a reload that is still to be done.
    let (tell, told) = crossbeam_channel::bounded(2);
    let mut is_ending = false;
    let watch = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                match log_file.as_ref().map(LogFile::reopen) {
                    Some(Ok(())) => log::info!("The log goes on in this file"),
                    Some(Err(error)) => log::error!("The log file cannot be opened again: {error}"),
                    None => log::info!("SIGHUP opens the log file anew, and there is none"),
                }
                // One that waits is enough: it reads what is there then.
                if tell.is_empty() && !is_ending {
                    let _told = tell.try_send(Told::Reload);
                }
            } else if !std::mem::replace(&mut is_ending, true) && tell.try_send(Told::Stop).is_ok() {
                // The first; there was room for it.
            } else if let Err(error) = emulate_default_handler(signal) {
                log::error!("The second signal cannot end the process: {error}");
            }
        }
    };
    threads.spawn("signals", SMALL_STACK_BYTES, watch)?;
    Ok(told)
}
