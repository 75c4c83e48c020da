//! The table of transitions, and random lives.

use proptest::prelude::*;

use super::*;

const LIMITS: TimeLimits = TimeLimits {
    connect: Duration::from_secs(30),
    first_data: Duration::from_secs(20),
    stall: Duration::from_secs(25),
    recover: Duration::from_secs(60),
    linger: Duration::from_secs(40),
    abandon: Duration::from_secs(15),
    max_barren: MAX_BARREN,
};

fn tick(silent_s: u64) -> Event {
    Event::Tick(SourceReport {
        silent_for: Duration::from_secs(silent_s),
        picture_overdue: Duration::ZERO,
        given: Yield::Some,
        engine: EngineState::Well,
        others: Others::Again,
        is_filling: false,
        hint: Hint::NoPeers,
        refusal: None,
    })
}

/// At the same time the engine has said that it is not ready to play.
fn refused(silent_s: u64) -> Event {
    match tick(silent_s) {
        Event::Tick(source) => {
            Event::Tick(SourceReport { refusal: Some("start timeout".to_owned()), ..source })
        }
        other => other,
    }
}

fn lost(attempt: u32, given: Yield) -> Event {
    Event::SourceLost { attempt, why: Why::SourceEnded(Ending::Broken), given, others: Others::None }
}

/// A life told by what happened at which second.
fn live(events: &[(u64, Event)]) -> (Life, Instant) {
    let begin = Instant::now();
    let mut life = Life::new(begin, &LIMITS);
    for (second, event) in events {
        life = life.step(event, begin + Duration::from_secs(*second), &LIMITS);
    }
    (life, begin)
}

/// A state with its instants as seconds.
fn told(life: &Life, begin: Instant) -> String {
    let s = |at: &Instant| at.duration_since(begin).as_secs();
    match &life.state {
        State::Starting(Start { phase, deadline, abandon_at, leaving, .. }) => {
            let attempt =
                if life.attempt > 0 { format!(", attempt {}", life.attempt) } else { String::new() };
            let abandoned = abandon_at.map_or_else(String::new, |at| format!(", abandoned at {}", s(&at)));
            let leaving = leaving.as_ref().map_or_else(String::new, |why| format!(", leaving: {why}"));
            format!("{phase:?} until {}{attempt}{abandoned}{leaving}", s(deadline))
        }
        State::Active => format!("active, attempt {}", life.attempt),
        State::Recovering { until, data_by, .. } => {
            let data_by = data_by.map_or_else(String::new, |by| format!(", data by {}", s(&by)));
            let pause = life.back_off().as_secs();
            format!("recovering until {}, attempt {} after {pause} s{data_by}", s(until), life.attempt)
        }
        State::Lingering { until } => format!("lingering until {}", s(until)),
        State::Stopping(outcome) => format!("stopping: {}", outcome.why),
        State::Stopped(outcome) => format!("stopped: {}", outcome.why),
    }
}

#[test]
fn every_transition_is_the_one_of_the_table() {
    use Event::{
        Asking, Connected, FetcherGone, FirstPackets, GiveWay, LastSeatLeft, Opened, SeatTaken, Stop,
    };
    use Others::{Again, Fresh};
    use Yield::{Barren, Some};
    let ended = "the engine ended the stream";
    let film_ends = || Event::SourceLost {
        attempt: 0,
        why: Why::SourceEnded(Ending::Complete),
        given: Some,
        others: Others::None,
    };
    let ill = |silent_s| {
        Event::Tick(SourceReport {
            silent_for: Duration::from_secs(silent_s),
            picture_overdue: Duration::ZERO,
            given: Some,
            engine: EngineState::Down,
            others: Again,
            is_filling: false,
            hint: Hint::None,
            refusal: None,
        })
    };
    let filling = |silent_s| {
        Event::Tick(SourceReport {
            silent_for: Duration::from_secs(silent_s),
            picture_overdue: Duration::ZERO,
            given: Some,
            engine: EngineState::Well,
            others: Again,
            is_filling: true,
            hint: Hint::None,
            refusal: None,
        })
    };
    let barren_silence = || {
        Event::Tick(SourceReport {
            silent_for: Duration::from_secs(25),
            picture_overdue: Duration::ZERO,
            given: Barren,
            engine: EngineState::Well,
            others: Again,
            is_filling: false,
            hint: Hint::None,
            refusal: None,
        })
    };
    let report = |silent_s, engine, others, is_filling| {
        let silent_for = Duration::from_secs(silent_s);
        let hint = Hint::None;
        let picture_overdue = Duration::ZERO;
        Event::Tick(SourceReport {
            silent_for,
            picture_overdue,
            given: Some,
            engine,
            others,
            is_filling,
            hint,
            refusal: None,
        })
    };
    let others = |others, is_filling| report(0, EngineState::Well, others, is_filling);
    let tried_at = |engine, others| report(2, engine, others, false);
    let dead = |silent_s, others| report(silent_s, EngineState::Dead, others, false);
    let failed = |attempt, others| Event::SourceLost {
        attempt,
        why: Why::SourceEnded(Ending::Broken),
        given: Barren,
        others,
    };
    let active = || (5, FirstPackets(0));
    #[rustfmt::skip]
    let table: Vec<(Vec<(u64, Event)>, String)> = vec![
        // Starting.
        (vec![], "Connecting until 30".into()),
        (vec![(1, SeatTaken)], "Connecting until 30".into()),
        (vec![(3, LastSeatLeft)], "Connecting until 30, abandoned at 18".into()),
        (vec![(3, LastSeatLeft), (9, SeatTaken)], "Connecting until 30".into()),
        (vec![(3, LastSeatLeft), (17, tick(0))], "Connecting until 30, abandoned at 18".into()),
        (vec![(3, LastSeatLeft), (18, tick(0))], "stopping: everybody left before it started".into()),
        (vec![(3, LastSeatLeft), (4, Connected(0))], "AwaitingData until 24, abandoned at 18".into()),
        (vec![(3, LastSeatLeft), active()], "lingering until 45".into()),
        (vec![(4, Connected(0))], "AwaitingData until 24".into()),
        (vec![(4, Connected(1))], "Connecting until 30".into()),
        (vec![(4, Connected(0)), (9, Connected(0))], "AwaitingData until 24".into()),
        (vec![(29, tick(29))], "Connecting until 30".into()),
        (vec![(30, tick(30))], format!("stopping: {}", Why::ConnectTimeout(LIMITS.connect, Hint::NoPeers))),
        (vec![(29, refused(29))], "Connecting until 30".into()),
        (vec![(30, refused(30))], format!("stopping: {}", Why::NotReady(LIMITS.connect, "start timeout".into()))),
        (vec![(4, Connected(0)), (24, refused(24))], format!("stopping: {}", Why::FirstDataTimeout(LIMITS.first_data, Hint::NoPeers))),
        (vec![(4, Connected(0)), (24, tick(24))], format!("stopping: {}", Why::FirstDataTimeout(LIMITS.first_data, Hint::NoPeers))),
        (vec![(2, lost(0, Barren))], format!("stopping: {ended}")),
        (vec![(2, lost(1, Barren))], "Connecting until 30".into()),
        (vec![(2, Stop(Why::Asked))], "stopping: stopped on request".into()),
        (vec![(2, FetcherGone)], format!("stopped: {}", Why::Panicked)),
        (vec![(2, GiveWay)], "Connecting until 30".into()),
        (vec![(3, LastSeatLeft), (4, GiveWay)], format!("stopping: {}", Why::GaveWay)),
        (vec![(3, LastSeatLeft), (4, SeatTaken), (4, GiveWay)], "Connecting until 30".into()),
        // A start has several tries.
        (vec![(9, others(Fresh, false))], "Connecting until 30".into()),
        (vec![(10, others(Fresh, false))], "Connecting until 30, attempt 1".into()),
        (vec![(10, others(Again, false))], "Connecting until 30".into()),
        (vec![(10, others(Fresh, true)), (29, others(Fresh, true))], "Connecting until 30".into()),
        (vec![(30, others(Fresh, true))], "Connecting until 40, attempt 1".into()),
        (vec![(4, Connected(0)), (9, others(Fresh, false))], "AwaitingData until 24".into()),
        (vec![(4, Connected(0)), (10, others(Fresh, false))], "Connecting until 30, attempt 1".into()),
        (vec![(10, others(Fresh, false)), (12, Connected(0))], "Connecting until 30, attempt 1".into()),
        (vec![(10, others(Fresh, false)), (28, Connected(1)), (47, tick(0))], "AwaitingData until 48, attempt 1".into()),
        (vec![(10, others(Fresh, false)), (29, Connected(1)), (49, others(Again, false))],
            format!("stopping: {}", Why::FirstDataTimeout(LIMITS.first_data, Hint::None))),
        // An engine that is gone or answers nothing is left at once, if another can be asked.
        (vec![(1, Asking(0)), (4, tried_at(EngineState::Mute, Fresh))], "Connecting until 30, attempt 1".into()),
        (vec![(1, Asking(0)), (4, tried_at(EngineState::Down, Fresh))], "Connecting until 30, attempt 1".into()),
        (vec![(4, Connected(0)), (5, tried_at(EngineState::Dead, Fresh))], "Connecting until 30, attempt 1".into()),
        (vec![(1, Asking(0)), (4, tried_at(EngineState::Mute, Again))], "Connecting until 30".into()),
        (vec![(1, Asking(0)), (4, tried_at(EngineState::Down, Others::None))], "Connecting until 30".into()),
        (vec![(2, failed(0, Fresh)), (3, failed(1, Again)), (4, failed(2, Others::None))], format!("stopping: {ended}")),
        (vec![(2, failed(0, Fresh)), (3, failed(1, Again))], "Connecting until 30, attempt 2".into()),
        (vec![(2, failed(0, Fresh)), (13, SeatTaken), (14, FirstPackets(1))], "active, attempt 1".into()),
        (vec![(45, failed(0, Fresh))], "Connecting until 50, attempt 1".into()),
        (vec![(50, failed(0, Fresh))], format!("stopping: {ended}")),
        // A getstream in flight is never cut: what would end the start waits for its answer.
        (vec![(1, Asking(0)), (3, LastSeatLeft), (4, GiveWay)],
            format!("Connecting until 30, abandoned at 18, leaving: {}", Why::GaveWay)),
        (vec![(1, Asking(0)), (3, LastSeatLeft), (4, GiveWay), (9, SeatTaken), (10, Opened(0))], "Connecting until 30".into()),
        (vec![(1, Asking(0)), (3, LastSeatLeft), (4, GiveWay), (10, Opened(0))], format!("stopping: {}", Why::GaveWay)),
        (vec![(1, Asking(0)), (3, LastSeatLeft), (18, tick(0)), (20, Opened(0))], "stopping: everybody left before it started".into()),
        (vec![(1, Asking(0)), (3, LastSeatLeft), (4, GiveWay), (5, failed(0, Fresh))], format!("stopping: {}", Why::GaveWay)),
        (vec![(1, Asking(0)), (2, Opened(0)), (3, LastSeatLeft), (4, GiveWay)], format!("stopping: {}", Why::GaveWay)),
        (vec![(1, Asking(0)), (3, LastSeatLeft), (4, Stop(Why::Asked))], "stopping: stopped on request".into()),
        // Active.
        (vec![active()], "active, attempt 0".into()),
        (vec![active(), (6, SeatTaken), (7, Connected(0)), (8, FirstPackets(0))], "active, attempt 0".into()),
        (vec![active(), (50, LastSeatLeft)], "lingering until 90".into()),
        (vec![active(), (50, tick(24))], "active, attempt 0".into()),
        (vec![active(), (50, tick(25))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, ill(2))], "active, attempt 0".into()),
        (vec![active(), (50, ill(3))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (70, filling(59))], "active, attempt 0".into()),
        (vec![active(), (70, filling(60))], "recovering until 130, attempt 1 after 0 s".into()),
        (vec![active(), (50, barren_silence())], "recovering until 110, attempt 1 after 1 s".into()),
        (vec![active(), (50, film_ends())], "stopping: the content ended".into()),
        (vec![active(), (50, Stop(Why::Shutdown))], format!("stopping: {}", Why::Shutdown)),
        (vec![active(), (50, FetcherGone)], format!("stopped: {}", Why::Panicked)),
        // An engine that neither sends nor answers is not waited for if another one can be asked.
        (vec![active(), (50, dead(8, Fresh))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, dead(8, Again))], "active, attempt 0".into()),
        (vec![active(), (50, dead(25, Again))], "recovering until 110, attempt 1 after 0 s".into()),
        // Recovering: within a round there is no pause, and a try is short while another engine can be asked.
        (vec![active(), (50, lost(0, Some)), (51, failed(1, Fresh))], "recovering until 110, attempt 2 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, failed(1, Fresh)), (52, failed(2, Again))],
            "recovering until 110, attempt 3 after 1 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, tried_at(EngineState::Mute, Fresh))], "recovering until 110, attempt 2 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, tried_at(EngineState::Mute, Again))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, tried_at(EngineState::Down, Others::None))], "recovering until 110, attempt 2 after 1 s".into()),
        (vec![active(), (50, tried_at(EngineState::Mute, Fresh))], "active, attempt 0".into()),
        (vec![active(), (50, lost(0, Some)), (51, Connected(1)), (60, others(Fresh, false))],
            "recovering until 110, attempt 2 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, Connected(1)), (60, others(Fresh, true))],
            "recovering until 110, attempt 1 after 0 s, data by 71".into()),
        (vec![active(), (50, lost(0, Some)), (60, others(Again, false))], "recovering until 110, attempt 1 after 0 s".into()),
        // Recovering.
        (vec![active(), (50, lost(0, Some))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Barren))], "recovering until 110, attempt 1 after 1 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, lost(0, Some))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, lost(1, Barren))], "recovering until 110, attempt 2 after 1 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, lost(1, Barren)), (52, lost(2, Barren)), (55, lost(3, Barren)),
            (60, lost(4, Barren)), (70, lost(5, Barren))], "recovering until 110, attempt 6 after 8 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, lost(1, Some))], "recovering until 110, attempt 2 after 1 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, lost(1, Some)), (52, FirstPackets(2)), (60, lost(2, Some))],
            "recovering until 120, attempt 3 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, Connected(1))],
            "recovering until 110, attempt 1 after 0 s, data by 71".into()),
        (vec![active(), (50, lost(0, Some)), (51, Connected(0))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (51, Connected(1)), (71, tick(0))],
            "recovering until 110, attempt 2 after 1 s".into()),
        (vec![active(), (50, lost(0, Some)), (52, FirstPackets(1))], "active, attempt 1".into()),
        (vec![active(), (50, lost(0, Some)), (52, FirstPackets(0))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (109, tick(99))], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, lost(0, Some)), (110, tick(99))],
            format!("stopping: {ended}, and it did not come back within 60.0 s")),
        (vec![active(), (50, lost(0, Some)), (60, LastSeatLeft)], "stopping: nobody watches any more".into()),
        (vec![active(), (50, lost(0, Some)), (60, SeatTaken)], "recovering until 110, attempt 1 after 0 s".into()),
        // A source that ends again and again: for ever if it gives something, not if it gives nothing.
        (vec![active(), (9, lost(0, Some)), (9, FirstPackets(1)), (14, lost(1, Some)), (14, FirstPackets(2)),
            (19, lost(2, Some)), (19, FirstPackets(3))], "active, attempt 3".into()),
        (vec![active(), (5, lost(0, Barren)), (6, FirstPackets(1)), (6, lost(1, Barren)), (8, FirstPackets(2)),
            (8, lost(2, Barren))], format!("stopping: {}", Why::Unstable(MAX_BARREN))),
        (vec![active(), (5, lost(0, Barren)), (6, Connected(1)), (6, lost(1, Barren)), (8, Connected(2)),
            (8, lost(2, Barren))], format!("stopping: {}", Why::Unstable(MAX_BARREN))),
        (vec![active(), (5, lost(0, Barren)), (6, Connected(1)), (6, lost(1, Barren)), (8, lost(2, Barren)),
            (12, Connected(3)), (13, lost(3, Some)), (20, Connected(4)), (20, lost(4, Barren))],
            "recovering until 65, attempt 5 after 8 s".into()),
        (vec![active(), (5, lost(0, Barren)), (6, FirstPackets(1)), (6, lost(1, Barren)), (8, FirstPackets(2)),
            (20, lost(2, Some)), (20, FirstPackets(3)), (20, lost(3, Barren))],
            "recovering until 80, attempt 4 after 1 s".into()),
        // Lingering.
        (vec![active(), (50, LastSeatLeft), (60, SeatTaken)], "active, attempt 0".into()),
        (vec![active(), (50, LastSeatLeft), (60, LastSeatLeft)], "lingering until 90".into()),
        (vec![active(), (50, LastSeatLeft), (89, tick(0))], "lingering until 90".into()),
        (vec![active(), (50, LastSeatLeft), (90, tick(0))], "stopping: nobody watches any more".into()),
        (vec![active(), (50, LastSeatLeft), (75, tick(25))], format!("stopping: {}", Why::Stalled(LIMITS.stall, Hint::NoPeers))),
        (vec![active(), (50, LastSeatLeft), (60, lost(0, Some))], format!("stopping: {ended}")),
        (vec![active(), (50, GiveWay)], "active, attempt 0".into()),
        (vec![active(), (50, lost(0, Some)), (51, GiveWay)], "recovering until 110, attempt 1 after 0 s".into()),
        (vec![active(), (50, LastSeatLeft), (60, GiveWay)], format!("stopping: {}", Why::GaveWay)),
        (vec![active(), (50, LastSeatLeft), (60, SeatTaken), (60, GiveWay)], "active, attempt 0".into()),
        // The end is the end.
        (vec![active(), (9, Stop(Why::Asked)), (10, SeatTaken), (11, lost(0, Some)), (12, FirstPackets(0)), (99, tick(99))],
            "stopping: stopped on request".into()),
        (vec![(9, Stop(Why::Asked)), (10, FetcherGone), (11, FetcherGone), (12, SeatTaken), (13, FirstPackets(0))],
            "stopped: stopped on request".into()),
    ];
    for (events, expected) in table {
        let (life, begin) = live(&events);
        assert_eq!(told(&life, begin), expected, "after {events:?}");
    }
}

#[test]
fn without_time_to_recover_a_lost_source_is_the_end() {
    let limits = TimeLimits { recover: Duration::ZERO, ..LIMITS };
    let now = Instant::now();
    let life = Life::new(now, &limits).step(&Event::FirstPackets(0), now, &limits);
    let life = life.step(&lost(0, Yield::Some), now, &limits);
    let why = Why::SourceEnded(Ending::Broken);
    assert_eq!(life.state, State::Stopping(Outcome { why, had_started: true }));
}

#[test]
fn who_waited_for_a_success_has_it_however_short() {
    let (life, _) = live(&[(5, Event::FirstPackets(0)), (6, lost(0, Yield::Some))]);
    assert_eq!(life.outcome_since(0), Some(Ok(())), "it waited for the start");
    assert_eq!(life.outcome_since(1), None, "it came while recovering");
    let (life, _) = live(&[(5, Event::FirstPackets(0)), (6, Event::Stop(Why::Asked))]);
    assert_eq!(life.outcome_since(0), Some(Ok(())));
    assert_eq!(life.outcome_since(1), Some(Err(Why::Asked)));
}

fn any_engine_state() -> impl Strategy<Value = EngineState> {
    prop_oneof![
        Just(EngineState::Well),
        Just(EngineState::Mute),
        Just(EngineState::Dead),
        Just(EngineState::Down)
    ]
}

fn any_others() -> impl Strategy<Value = Others> {
    prop_oneof![Just(Others::None), Just(Others::Again), Just(Others::Fresh)]
}

fn any_event() -> impl Strategy<Value = Event> {
    let source = |(silent_s, engine, others, is_filling)| {
        Event::Tick(SourceReport {
            silent_for: Duration::from_secs(silent_s),
            picture_overdue: Duration::ZERO,
            given: Yield::Some,
            engine,
            others,
            is_filling,
            hint: Hint::None,
            refusal: None,
        })
    };
    prop_oneof![
        Just(Event::SeatTaken),
        Just(Event::LastSeatLeft),
        (0_u32..4).prop_map(Event::Connected),
        (0_u32..4).prop_map(Event::FirstPackets),
        (0_u32..4).prop_map(Event::Asking),
        (0_u32..4).prop_map(Event::Opened),
        ((0_u32..4), any::<bool>(), any_others()).prop_map(|(attempt, is_barren, others)| {
            Event::SourceLost {
                attempt,
                why: Why::SourceEnded(Ending::Broken),
                given: if is_barren { Yield::Barren } else { Yield::Some },
                others,
            }
        }),
        Just(Event::Stop(Why::Asked)),
        Just(Event::GiveWay),
        (0_u64..60, any_engine_state(), any_others(), any::<bool>()).prop_map(source),
        Just(Event::FetcherGone),
    ]
}

fn rank(state: &State) -> u8 {
    match state {
        State::Starting(_) => 0,
        State::Active | State::Recovering { .. } | State::Lingering { .. } => 1,
        State::Stopping(_) => 2,
        State::Stopped(_) => 3,
    }
}

proptest! {
    /// Whatever happens in whatever order: a stream never goes back, attempts only grow, everybody who waits gets one
    /// answer that does not change, and once its fetcher is gone it is stopped for good.
    #[test]
    fn no_order_of_events_breaks_a_life(events in proptest::collection::vec((any_event(), 0_u64..20), 0..60)) {
        let mut now = Instant::now();
        let mut life = Life::new(now, &LIMITS);
        let mut outcome = None;
        let mut is_gone = false;
        for (event, seconds) in events {
            now += Duration::from_secs(seconds);
            let next = life.step(&event, now, &LIMITS);
            prop_assert!(rank(&next.state) >= rank(&life.state), "{life:?} after {event:?} became {next:?}");
            prop_assert!(next.attempt >= life.attempt && next.attempt - life.attempt <= 1);
            if next.activations > life.activations {
                prop_assert!(matches!(event, Event::FirstPackets(attempt) if attempt == life.attempt));
            }
            let told = next.outcome_since(0);
            if outcome.is_some() {
                prop_assert_eq!(&told, &outcome, "{:?} after {:?}", &life, &event);
            }
            outcome = told;
            is_gone |= matches!(event, Event::FetcherGone);
            prop_assert!(!is_gone || matches!(next.state, State::Stopped(_)));
            life = next;
        }
        // Nobody waits for ever: time alone answers everybody, also who came just now.
        let came = life.activations;
        for _ in 0..3 {
            now += LIMITS.connect + LIMITS.first_data + LIMITS.recover;
            life = life.step(&tick(0), now, &LIMITS);
        }
        prop_assert!(life.outcome_since(came).is_some());
    }
}
