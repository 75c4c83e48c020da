use proptest::prelude::*;

use super::*;

fn media(text: &str) -> MediaList {
    match parse(text.as_bytes()) {
        Ok(Playlist::Media(list)) => list,
        other => panic!("no list of segments: {other:?}"),
    }
}

fn segment(uri: &str, seconds: f64) -> Segment {
    let duration = Duration::from_secs_f64(seconds);
    Segment { uri: uri.to_owned(), range: None, duration, is_break: false, is_gap: false }
}

#[test]
fn the_list_of_an_engine_is_read() {
    let text = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:7\n#EXT-X-MEDIA-SEQUENCE:12\n\
        #EXTINF:5.960000,\nhttp://box:6878/ace/c/aa/12.ts\n#EXTINF:3.7,a title, with a comma\n\
        http://box:6878/ace/c/aa/13.ts\n";
    let expected = MediaList {
        target: Duration::from_secs(7),
        first: 12,
        segments: vec![
            segment("http://box:6878/ace/c/aa/12.ts", 5.96),
            segment("http://box:6878/ace/c/aa/13.ts", 3.7),
        ],
        is_over: false,
    };
    assert_eq!(media(text), expected);
    assert_eq!(media(&format!("\u{feff}{}", text.replace('\n', "\r\n"))), expected);
    assert_eq!((expected.end(), expected.get(11), expected.get(14)), (14, None, None));
    assert_eq!(expected.get(13).map(|segment| &*segment.uri), Some("http://box:6878/ace/c/aa/13.ts"));
}

#[test]
fn breaks_gaps_ranges_and_the_end_are_read() {
    let list = media(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-BYTERANGE:100@50\na.ts\n#EXT-X-BYTERANGE:30\na.ts\n\
         #EXT-X-DISCONTINUITY\n#EXTINF:9,\nb.ts\n#EXT-X-GAP\nc.ts\n#EXT-X-KEY:METHOD=NONE\nd.ts\n#EXT-X-ENDLIST\n",
    );
    let found: Vec<_> = list.segments.iter().map(|one| (one.range, one.is_break, one.is_gap)).collect();
    let plain = (None, false, false);
    let expected = [
        (Some((50, 150)), false, false),
        (Some((150, 180)), false, false),
        (None, true, false),
        (None, false, true),
        plain,
    ];
    assert_eq!(found, expected);
    assert!(list.is_over && list.first == 0);
    let longest = Duration::from_secs(2);
    assert!(
        list.segments.iter().all(|one| one.duration == longest),
        "what is not said, or above it: {list:?}"
    );
}

#[test]
fn of_several_qualities_the_best_with_its_sound_is_taken() {
    let of = |text: &str| match parse(text.as_bytes()) {
        Ok(Playlist::Variants(variants)) => best(&variants).expect("at least one").uri.clone(),
        other => panic!("no variants: {other:?}"),
    };
    let rates = "#EXTM3U\n#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=800000\nlow.m3u8\n\
        #EXT-X-STREAM-INF:CODECS=\"avc1.4d401f,mp4a.40.2\",BANDWIDTH=5000000,NAME=\"BANDWIDTH=9\"\nhigh.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=5000000\nsame.m3u8\n#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=9000000,URI=\"i.m3u8\"\n";
    assert_eq!(of(rates), "high.m3u8");
    let apart = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"a\",NAME=\"x\",URI=\"sound.m3u8\"\n\
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"b\",NAME=\"x\"\n#EXT-X-STREAM-INF:BANDWIDTH=9,AUDIO=\"a\"\nmute.m3u8\n\
        #EXT-X-STREAM-INF:BANDWIDTH=3,AUDIO=\"b\"\nwhole.m3u8\n";
    assert_eq!(of(apart), "whole.m3u8");
    assert_eq!(of(&apart.replace("\"b\"", "\"a\"")), "mute.m3u8", "better than nothing");
    assert_eq!(of("#EXTM3U\n#EXT-X-STREAM-INF:\nonly.m3u8"), "only.m3u8");
}

#[track_caller]
fn refused(lines: &str, expected: ListError) {
    let text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{lines}\n");
    assert_eq!(parse(text.as_bytes()), Err(expected), "{lines}");
}

#[test]
fn what_cannot_be_joined_is_told() {
    refused("#EXT-X-KEY:METHOD=AES-128,URI=\"/k\"\n#EXTINF:2,\na.ts", ListError::Encrypted);
    refused("#EXT-X-KEY:METHOD=SAMPLE-AES\na.ts", ListError::Encrypted);
    refused("#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:2,\n0.ts", ListError::Fragmented);
    refused("#EXTINF:2,\nhttp://x/0.M4S?a=b", ListError::Fragmented);
    refused("#EXT-X-MEDIA-SEQUENCE:-1\na.ts", ListError::Unreadable("its media sequence"));
    refused("#EXT-X-MEDIA-SEQUENCE:18446744073709551615", ListError::Unreadable("its media sequence"));
    refused("#EXT-X-TARGETDURATION:NaN", ListError::Unreadable("its target duration"));
    refused("#EXT-X-BYTERANGE:2@x", ListError::Unreadable("a byte range"));
    refused("b.ts\n#EXT-X-BYTERANGE:2\na.ts", ListError::Unreadable("a byte range without a beginning"));
    refused(&format!("#EXT-X-BYTERANGE:{}@1\na.ts", u64::MAX), ListError::Unreadable("a byte range"));
    refused(&"a".repeat(MAX_URI_BYTES + 1), ListError::TooLong);
    refused(&"a\n".repeat(MAX_SEGMENTS + 1), ListError::TooLong);
    assert_eq!(parse(b"#EXTM3U\n0.ts"), Err(ListError::Unreadable("it has no target duration")));
    let none = Err(ListError::Unreadable("it does not begin with #EXTM3U"));
    for text in [&b""[..], b"#EXT", b"<html>", b"\xef\xbb\xbf", b"#EXTINF:1,\na.ts"] {
        assert_eq!(parse(text), none);
    }
}

#[test]
fn a_list_is_told_from_a_stream_by_its_first_bytes() {
    for (begin, expected) in [
        (&b""[..], None),
        (b"#", None),
        (b"#EXTM3", None),
        (b"#EXTM3U", Some(true)),
        (b"#EXTM3U8\r\n", Some(true)),
        (b"\xef\xbb", None),
        (b"\xef\xbb\xbf#EXT", None),
        (b"\xef\xbb\xbf#EXTM3U\n", Some(true)),
        (b"\xef\xbb\xbfG", Some(false)),
        (b"\xef\x47", Some(false)),
        (b"G", Some(false)),
        (b"#EXTINF", Some(false)),
    ] {
        assert_eq!(is_list(begin), expected, "{begin:?}");
    }
}

#[test]
fn a_target_is_never_so_short_or_long_that_the_asking_would_run_wild() {
    let of = |target: &str| media(&format!("#EXTM3U\n#EXT-X-TARGETDURATION:{target}\n")).target;
    assert_eq!((of("0"), of("4.5"), of("999999")), (MIN_TARGET, Duration::from_millis(4500), MAX_TARGET));
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _list = parse(&[MAGIC, &text].concat());
    }

    #[test]
    fn no_list_makes_the_reader_panic(
        lines in proptest::collection::vec(
            "(#EXT-X-(TARGETDURATION|MEDIA-SEQUENCE|BYTERANGE|KEY|STREAM-INF|MEDIA|GAP|DISCONTINUITY)|#EXTINF):[0-9@.,=\"A-Z-]{0,30}|[a-z/.:]{0,20}",
            0..30,
        ),
    ) {
        if let Ok(Playlist::Media(list)) = parse(format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{}", lines.join("\n")).as_bytes()) {
            prop_assert!(list.target >= MIN_TARGET && list.target <= MAX_TARGET);
            prop_assert!(list.segments.iter().all(|segment| segment.duration <= list.target));
            prop_assert!(list.end() >= list.first);
        }
    }
}
