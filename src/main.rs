//! The `acerelay` program: reads flags, environment and file, runs the proxy until a signal.

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use acerelay::app::App;
use acerelay::cli::{self, Command, EngineSource, HealthUrl, Settings};
use acerelay::config::{Config, Engine};
use acerelay::http::listener::Inherited;
use acerelay::logging::{self, LogFile};
use acerelay::notify::{self, Notifier};
use acerelay::sim::demo::Demo;
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
    let first_signal = watch_signals(signals, log.file.clone(), &threads)?;

    let demo = match settings.engines {
        EngineSource::Configured => None,
        EngineSource::Demo => {
            let demo = Demo::start()?;
            let address = demo.address();
            config.engines = vec![Engine::at(address.ip().into(), address.port())];
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
    wait_for_signal(&first_signal, notifier.as_mut(), &app)?;
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

/// Waits for the first signal. A service manager, if there is one, is kept informed meanwhile.
fn wait_for_signal(
    first_signal: &Receiver<()>,
    notifier: Option<&mut Notifier>,
    app: &App,
) -> Result<(), RecvError> {
    if let Some(notifier) = notifier {
        while let Err(RecvTimeoutError::Timeout) = first_signal.recv_timeout(notifier.interval()) {
            notifier.beat(app.answers(), app.headline());
        }
        return Ok(());
    }
    // Its sender lives until the first signal, and its thread as long as the handle is open.
    first_signal.recv()
}

/// Sends the first signal; at the second one the process ends at once, as if it did not handle signals. SIGHUP ends
/// nothing: it tells that the log file was renamed.
fn watch_signals(
    mut signals: Signals,
    log_file: Option<LogFile>,
    threads: &Threads,
) -> io::Result<Receiver<()>> {
    let (told, first_signal) = crossbeam_channel::bounded(1);
    let mut told = Some(told);
    let watch = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                match log_file.as_ref().map(LogFile::reopen) {
                    Some(Ok(())) => log::info!("The log goes on in this file"),
                    Some(Err(error)) => log::error!("The log file cannot be opened again: {error}"),
                    None => log::info!("SIGHUP opens the log file anew, and there is none"),
                }
            } else if told.take().is_some_and(|told| told.try_send(()).is_ok()) {
                // The first; it had room for this one.
            } else if let Err(error) = emulate_default_handler(signal) {
                log::error!("The second signal cannot end the process: {error}");
            }
        }
    };
    threads.spawn("signals", SMALL_STACK_BYTES, watch)?;
    Ok(first_signal)
}
