use super::*;
use crate::channels::m3u::parse;
use crate::channels::m3u::tests::WILD;
use crate::config::{Channel as Configured, Playlist};

fn merged(channels: &[Configured], lists: &[(&str, Playlist)]) -> (Vec<Draft>, Vec<Count>) {
    let read: Vec<_> = lists.iter().map(|(text, _)| parse(text.as_bytes()).expect("a list")).collect();
    let inputs: Vec<_> = lists
        .iter()
        .zip(&read)
        .enumerate()
        .map(|(at, ((_, settings), m3u))| Input { name: format!("list {at}").into(), settings, m3u })
        .collect();
    merge(channels, &inputs)
}

fn told(drafts: &[Draft]) -> Vec<String> {
    drafts.iter().map(|draft| format!("{} {}", draft.sources.len(), draft.name)).collect()
}

fn with(change: impl FnOnce(&mut Playlist)) -> Playlist {
    let mut settings = Playlist::default();
    change(&mut settings);
    settings
}

/// Entries of these names, each with a content of its own.
fn list(names: &[&str]) -> String {
    names.iter().enumerate().map(|(at, name)| format!("#EXTINF:-1,{name}\n{:040x}\n", 0x1000 + at)).collect()
}

#[test]
fn a_wild_list_becomes_the_channels_that_a_person_would_make_of_it() {
    let (drafts, counts) = merged(&[], &[(WILD, Playlist::default())]);
    assert_eq!(
        told(&drafts),
        [
            "2 Canal Faro FHD",
            "1 Canal Faro 720p",
            "1 Canal Faro 2 FHD",
            "1 Liga Azul, partido 1",
            "1 Cine \"Rojo\" = 100 %",
            "1 L'\u{ce}le 4K",
            "1 24 Horas del Norte",
            "1 24h Sur",
            "1 Radio Faro",
            "1 Copa (repetici\u{f3}n)",
            "1 740e08b5",
        ]
    );
    let skipped = Skipped { other: 2, bad_ids: 1, without_url: 1, repeated: 1, ..Skipped::default() };
    assert_eq!((counts[0].entries, counts[0].channels, counts[0].skipped), (16, 11, skipped));
    assert_eq!(drafts[3].group.as_deref(), Some("F\u{da}TBOL; EVENTOS"));
    assert_eq!(drafts[3].wish, Some(7));
    assert_eq!(drafts[5].tvg_id.as_deref(), Some("Ile.xx"));
    assert_eq!([6, 7].map(|at: usize| drafts[at].group.as_deref()), [Some("Noticias"); 2]);
    assert_eq!(*drafts[8].attributes, [("radio".into(), "true".into())]);
    let index: Vec<_> = drafts[9].sources[0].content.params.iter().collect();
    assert_eq!(index, [("_idx", "1")]);

    let (drafts, _) = merged(&[], &[(WILD, with(|settings| settings.merge = Merge::Quality))]);
    assert_eq!(told(&drafts)[..2], ["3 Canal Faro FHD", "1 Canal Faro 2 FHD"]);

    let (drafts, counts) = merged(&[], &[(WILD, with(|settings| settings.other = Other::Keep))]);
    let kept: Vec<_> =
        drafts.iter().filter_map(|draft| draft.elsewhere.as_ref()).map(|kept| &*kept.url).collect();
    assert_eq!(
        kept[0],
        "https://cdn.example/live/6804d1e59aa6caf9014b5219a6880cf055accf87/index.m3u8|User-Agent=x"
    );
    assert_eq!((kept.len(), counts[0].skipped.other), (2, 0));
}

#[test]
fn entries_of_several_lists_are_sources_of_one_channel_in_their_order() {
    let second = "#EXTINF:-1 tvg-logo=\"http://l\",canal uno FHD\nacestream://00000000000000000000000000000000000000aa\n";
    let prefer = with(|settings| settings.prefer = vec!["FHD".to_owned()]);
    let quality = with(|settings| settings.merge = Merge::Quality);
    let first = list(&["Canal Uno 720p", "Canal Dos"]);
    let both =
        |second_settings: Playlist| merged(&[], &[(&first, quality.clone()), (second, second_settings)]).0;
    let drafts = both(Playlist { merge: Merge::Quality, ..prefer });
    assert_eq!(told(&drafts), ["2 Canal Uno 720p", "1 Canal Dos"]);
    assert_eq!(drafts[0].logo.as_deref(), Some("http://l"));
    assert_eq!(drafts[0].sources[0].list.as_deref(), Some("list 0"), "nothing is preferred to the first");
    assert_eq!(told(&both(with(|settings| settings.merge = Merge::Off))).len(), 3);
    let one = "#EXTINF:-1,A\n00000000000000000000000000000000000000aa\n#EXTINF:-1,A 1080\n00000000000000000000000000000000000000bb\n";
    let settings =
        Playlist { merge: Merge::Quality, ..with(|settings| settings.prefer = vec!["1080".to_owned()]) };
    let (drafts, _) = merged(&[], &[(one, settings)]);
    assert_eq!(&*drafts[0].sources[0].name, "A 1080");
}

#[test]
fn guide_ids_that_contradict_and_radio_keep_channels_apart() {
    let text = "#EXTINF:-1 tvg-id=\"a\",X\n00000000000000000000000000000000000000aa\n\
                #EXTINF:-1 tvg-id=\"b\",X\n00000000000000000000000000000000000000bb\n\
                #EXTINF:-1,X\n00000000000000000000000000000000000000cc\n\
                #EXTINF:-1 radio=\"true\",X\n00000000000000000000000000000000000000dd\n";
    let (drafts, _) = merged(&[], &[(text, Playlist::default())]);
    assert_eq!(told(&drafts), ["2 X", "1 X", "1 X"]);
}

#[test]
fn the_configuration_is_law() {
    let digest = |at: usize| format!("{:040x}", 0x1000 + at);
    let id = |at| ContentKey::from_query(None, [("id", digest(at))]).expect("a key");
    let channels = [
        Configured { name: "Mine".into(), ids: vec![id(9), id(1)], number: Some(5), ..Configured::default() },
        Configured {
            name: "Faro".into(),
            pattern: "canal faro*".into(),
            group: "G".into(),
            ..Configured::default()
        },
        Configured { name: "Nothing".into(), pattern: "no such".into(), ..Configured::default() },
    ];
    let text = list(&["Canal Faro FHD --> X", "Other", "Canal Faro 2", "Canal Mar"]);
    let (drafts, counts) = merged(&channels, &[(&text, Playlist::default())]);
    assert_eq!(told(&drafts), ["2 Mine", "2 Faro", "1 Canal Mar"]);
    assert_eq!((drafts[0].number, drafts[1].group.as_deref()), (Some(5), Some("G")));
    assert_eq!(
        drafts[1].sources.iter().map(|source| &*source.name).collect::<Vec<_>>(),
        ["Canal Faro FHD --> X", "Canal Faro 2"]
    );
    assert_eq!((counts[0].channels, counts[0].skipped.claimed), (2, 1));
}

#[test]
fn patterns_let_through_and_keep_out() {
    let text = "#EXTINF:-1 group-title=\"Sports;Live\",Canal A\n00000000000000000000000000000000000000aa\n\
                #EXTINF:-1 group-title=\"News\",Canal B\n00000000000000000000000000000000000000bb\n\
                #EXTINF:-1,Event C\n00000000000000000000000000000000000000cc\n";
    let check = |include: &[&str], exclude: &[&str], expected: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let settings = with(|settings| {
            (settings.include, settings.exclude) = (owned(include), owned(exclude));
            settings.group_prefix = "P: ".to_owned();
        });
        let (drafts, counts) = merged(&[], &[(text, settings)]);
        assert_eq!(drafts.iter().map(|draft| draft.name.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(counts[0].skipped.excluded, 3 - expected.len());
    };
    check(&["canal*"], &[], &["Canal A", "Canal B"]);
    check(&[], &["group:*news"], &["Canal A", "Event C"]);
    check(&["group:live", "event ?"], &["event*"], &["Canal A"]);
}
