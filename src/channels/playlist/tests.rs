use proptest::prelude::*;

use super::*;
use crate::channels::list::Source;
use crate::channels::m3u::parse;
use crate::id::ContentKey;

fn channel(number: u32, name: &str, group: &str) -> Channel {
    let content = ContentKey::from_query(None, [("id", format!("{number:040x}"))]).expect("a key");
    Channel {
        slug: format!("channel-{number}").parse().expect("a slug"),
        number,
        name: name.into(),
        group: Some(group).filter(|group| !group.is_empty()).map(Into::into),
        logo: None,
        tvg_id: None,
        attributes: Box::default(),
        sources: [Source { content, list: None, line: 0, name: name.into() }].into(),
        elsewhere: None,
    }
}

fn list(channels: Vec<Channel>) -> List {
    List::new(channels, Vec::new(), Vec::new(), 1)
}

#[test]
fn the_list_is_what_players_read() {
    let mut first = channel(101, "Canal \"Faro\", uno", "Deportes");
    first.logo = Some("http://x/a,b.png".into());
    first.tvg_id = Some("Faro.xx".into());
    first.attributes = [("radio".into(), "true".into())].into();
    let text = write(
        &list(vec![channel(102, "B", ""), first]),
        "http://box:8000/tv",
        &Choice { has_guide: true, ..Choice::default() },
    );
    assert_eq!(
        text,
        "#EXTM3U url-tvg=\"http://box:8000/tv/epg.xml\" x-tvg-url=\"http://box:8000/tv/epg.xml\"\n\
         #EXTINF:-1 channel-id=\"channel-101\" tvg-id=\"Faro.xx\" tvg-name=\"Canal \u{201d}Faro\u{201d} uno\" tvg-chno=\"101\" \
         tvg-logo=\"http://x/a%2Cb.png\" group-title=\"Deportes\" radio=\"true\",Canal \u{201d}Faro\u{201d}\u{201a} uno\n\
         http://box:8000/tv/ch/channel-101.ts\n\
         #EXTINF:-1 channel-id=\"channel-102\" tvg-id=\"channel-102\" tvg-name=\"B\" tvg-chno=\"102\",B\n\
         http://box:8000/tv/ch/channel-102.ts\n"
    );
}

#[test]
fn a_group_a_word_and_hls_can_be_asked_for() {
    let list = list(vec![channel(1, "Uno", "A"), channel(2, "Dos", "B; c"), channel(3, "\u{da}ltimo", "")]);
    let urls = |choice: Choice| {
        write(&list, "http://b", &choice)
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let group = |group: &str| Choice { group: Some(group.to_owned()), ..Choice::default() };
    assert_eq!(urls(group("a")), "http://b/ch/channel-1.ts");
    assert_eq!(urls(group("C")), "http://b/ch/channel-2.ts");
    assert_eq!(urls(group("x")), "");
    let search = Choice { search: Some("\u{fa}LT".to_owned()), is_hls: true, ..Choice::default() };
    assert_eq!(urls(search), "http://b/ch/channel-3.m3u8");
}

#[test]
fn what_is_not_ours_is_passed_through_as_it_was() {
    let mut kept = channel(1, "A", "");
    kept.sources = Box::default();
    kept.elsewhere = Some(Box::new(crate::channels::list::Elsewhere {
        url: "http://c/x|a=b".into(),
        options: ["#EXTVLCOPT:x=1".into()].into(),
        list: "l".into(),
        line: 3,
    }));
    let text = write(&list(vec![kept]), "http://b", &Choice::default());
    assert!(text.ends_with(",A\n#EXTVLCOPT:x=1\nhttp://c/x|a=b\n"), "{text}");
}

proptest! {
    #[test]
    fn every_channel_reads_back(channels in proptest::collection::vec(("\\PC{1,20}", "\\PC{0,10}", "\\PC{0,10}"), 0..6)) {
        let clean = |text: &str| crate::channels::text::clean(text, 1000);
        let channels: Vec<_> = channels
            .iter()
            .enumerate()
            .filter(|(_, (name, ..))| !clean(name).is_empty())
            .map(|(at, (name, group, id))| Channel {
                tvg_id: Some(clean(id)).filter(|id| !id.is_empty()).map(Into::into),
                ..channel(1 + at as u32, &clean(name), &clean(group))
            })
            .collect();
        let text = write(&list(channels.clone()), "http://box", &Choice::default());
        let read = parse(text.as_bytes()).map(|m3u| m3u.entries).unwrap_or_default();
        prop_assert_eq!(read.len(), channels.len());
        for (entry, channel) in read.iter().zip(&channels) {
            // Quotes and commas are said otherwise; all else is the same.
            let plain = |text: &str, comma: &str| clean(&text.replace('"', "\u{201d}").replace(',', comma));
            prop_assert_eq!(&entry.name, &plain(&channel.name, "\u{201a}"));
            prop_assert_eq!(entry.attribute("tvg-chno"), Some(&*channel.number.to_string()));
            prop_assert_eq!(entry.attribute("channel-id"), Some(channel.slug.as_str()));
            let group = channel.group.as_deref().map(|group| plain(group, if group.contains("://") { "%2C" } else { "" }));
            let read = entry.attribute("group-title").map(clean);
            prop_assert_eq!(read.unwrap_or_default(), group.unwrap_or_default());
            prop_assert_eq!(&entry.url, &format!("http://box/ch/{}.ts", channel.slug));
        }
    }
}
