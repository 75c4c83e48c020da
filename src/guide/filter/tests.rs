//! What of a guide is kept, and what a hostile one costs.

use proptest::prelude::*;

use super::*;

/// 25 November 2026, 12:00 UTC.
const NOON: i64 = 1_795_608_000;
const WINDOW: Window = Window { from: NOON - 6 * 3600, to: NOON + 3 * DAY };

fn wanted() -> Wanted {
    Wanted::new(
        [("CanalFaro.xx".into(), None, vec!["Canal Faro"]), ("cine-rojo".into(), None, vec!["Cine & Rojo"])]
            .into_iter(),
    )
}

fn run(text: &[u8]) -> (Vec<String>, Found, Option<Fault>) {
    let mut kept = Vec::new();
    let (found, fault) = filter(
        text,
        &wanted(),
        WINDOW,
        &mut |element| {
            kept.push(format!("{} {}", element.id, element.xml));
            Ok(())
        },
        &|| (),
    );
    (kept, found, fault)
}

const GUIDE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE tv SYSTEM "xmltv.dtd" [<!ENTITY lol "lol"><!ENTITY x SYSTEM "file:///etc/passwd">]>
<tv source="x">
  <channel id="canalfaro.XX"><display-name lang="es">Canal Faro HD</display-name><icon src="http://x/a.png?a=1&amp;b=2"/></channel>
  <channel id="77"><display-name>CINE  &amp; <![CDATA[rojo]]></display-name></channel>
  <channel id="other"><display-name>Other</display-name></channel>
  <programme start="20261125110000 +0100" stop="20261125130000 +0100" channel="canalfaro.XX" x='"'><title lang="es">A &lol; &x; &eacute; &#233; &amp;</title><!-- no --></programme>
  <programme start="20261125110000 +0100" stop="20261125120000 +0100" channel="other"><title>No</title></programme>
  <programme start="20261120110000" stop="20261120120000" channel="canalfaro.XX"><title>Over</title></programme>
  <programme start="20261129110000" stop="20261129120000" channel="canalfaro.XX"><title>Far off</title></programme>
  <programme start="20261126" channel="77"><title>Cine</title><desc><![CDATA[<b>&]]></desc></programme>
</tv>
"#;

#[test]
fn what_is_wanted_is_kept_under_the_ids_of_the_playlist() {
    let (kept, found, fault) = run(GUIDE.as_bytes());
    assert_eq!(
        kept,
        [
            r#"CanalFaro.xx <channel id="CanalFaro.xx"><display-name lang="es">Canal Faro HD</display-name><icon src="http://x/a.png?a=1&amp;b=2"/></channel>"#,
            r#"cine-rojo <channel id="cine-rojo"><display-name>CINE  &amp; rojo</display-name></channel>"#,
            r#"CanalFaro.xx <programme start="20261125110000 +0100" stop="20261125130000 +0100" x="&quot;" channel="CanalFaro.xx"><title lang="es">A &amp;lol; &amp;x; &amp;eacute; &#233; &amp;</title></programme>"#,
            r#"cine-rojo <programme start="20261126" channel="cine-rojo"><title>Cine</title><desc>&lt;b&gt;&amp;</desc></programme>"#,
        ]
    );
    assert_eq!(found, Found { elements: 8, channels: 2, programmes: 2, broken: 0 });
    assert_eq!(fault, None);
}

#[test]
fn what_is_broken_costs_its_own_element_alone() {
    let good = r#"<programme start="20261125" channel="CanalFaro.xx"><title>Good</title></programme>"#;
    for broken in [
        r#"<programme start="20261125" channel="CanalFaro.xx"><title>A</desc></programme>"#,
        r#"<programme start="20261125" channel="CanalFaro.xx"><title>A"#,
        r#"<programme start="x" channel="CanalFaro.xx"><title>A</title></programme>"#,
        r#"<programme start="20261125"><title>A</title></programme>"#,
        r#"<programme start="20261125" channel="CanalFaro.xx"></programme>"#,
        r#"<programme start="20261125" channel="CanalFaro.xx"><a:b>A</a:b></programme>"#,
        r#"<programme start="20261125" channel="CanalFaro.xx"><title>A</title></tv>"#,
    ] {
        let (kept, found, fault) = run(format!("<tv>{broken}{good}</tv>").as_bytes());
        assert_eq!((kept.len(), found.programmes, found.broken), (1, 1, 1), "{broken}: {kept:?}");
        assert!(kept[0].contains("Good") && fault.is_none(), "{broken}: {kept:?} {fault:?}");
    }
    // Many without an end do not pile up.
    let many = r#"<programme start="20261125" channel="CanalFaro.xx"><title><a>"#.repeat(1000);
    let (kept, found, fault) = run(format!("<tv>{many}{good}</tv>").as_bytes());
    assert_eq!((kept.len(), found.broken, fault), (1, 1000, None));
}

#[test]
fn what_ends_a_guide_is_told_with_its_line_and_what_was_before_is_kept() {
    let good =
        "<tv>\n<programme start=\"20261125\" channel=\"CanalFaro.xx\"><title>Good</title></programme>\n";
    let long = "x".repeat(2_000_000);
    for (rest, line, why) in [
        (
            "<programme start=\"20261125\" channel=\"CanalFaro.xx\"><title>A".to_owned(),
            3,
            "it ends in the middle",
        ),
        (format!("\n<desc>{long}"), 4, "an element or text without end"),
        (format!("<a b=\"{long}"), 3, "an element or text without end"),
        ("<a>".repeat(100), 3, "elements without end, one in the other"),
    ] {
        let (kept, _, fault) = run(format!("{good}{rest}").as_bytes());
        let fault = fault.expect("a fault");
        assert_eq!((kept.len(), fault.line), (1, line), "{fault}");
        assert!(fault.to_string().contains(why), "{fault}");
    }
    for none in ["", "<html><body>Not found</body></html>", "{\"error\": 1}", "<tv></tv>"] {
        let (kept, _, fault) = run(none.as_bytes());
        assert!(kept.is_empty(), "{none}");
        assert!(fault.is_some_and(|fault| fault.to_string().contains("there is no guide in it")), "{none}");
    }
}

/// A billion laughs, as a file.
#[test]
fn entities_mean_nothing() {
    let mut text = String::from("<!DOCTYPE tv [<!ENTITY a0 \"lol\">");
    for level in 1..30 {
        let references = format!("&a{};", level - 1).repeat(10);
        text.push_str(&format!("<!ENTITY a{level} \"{references}\">"));
    }
    text.push_str(
        "]><tv><programme start=\"20261125\" channel=\"CanalFaro.xx\"><title>&a29;</title></programme></tv>",
    );
    let (kept, _, fault) = run(text.as_bytes());
    assert!(fault.is_none() && kept[0].contains("<title>&amp;a29;</title>"), "{kept:?} {fault:?}");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic_and_all_that_is_kept_is_well_formed(
        pieces in prop::collection::vec(
            prop_oneof![
                Just("<tv>".to_owned()), Just("</tv>".to_owned()), Just("<title>".to_owned()), Just("</title>".to_owned()),
                Just("<programme start=\"20261125\" channel=\"CanalFaro.xx\">".to_owned()), Just("</programme>".to_owned()),
                Just("<channel id=\"canalfaro.xx\">".to_owned()), Just("</channel>".to_owned()), Just("<!--".to_owned()),
                Just("-->".to_owned()), Just("<![CDATA[".to_owned()), Just("]]>".to_owned()), Just("<icon src='".to_owned()),
                Just("<!DOCTYPE tv [".to_owned()), Just("&amp;".to_owned()), Just("&x;".to_owned()), "\\PC{0,12}", "[<>&\"'=/ a]{0,9}",
            ],
            0..40,
        ),
    ) {
        let (kept, _, _) = run(pieces.concat().as_bytes());
        for element in kept {
            let (_, element) = element.split_once(' ').expect("an id");
            let mut reader = Reader::from_str(element);
            loop {
                match reader.read_event() {
                    Ok(Event::Eof) => break,
                    Ok(Event::Start(start) | Event::Empty(start)) => {
                        for attribute in start.attributes() {
                            prop_assert!(attribute.is_ok(), "{}", element);
                        }
                    }
                    Ok(Event::GeneralRef(name)) => {
                        prop_assert!(["amp", "lt", "gt", "quot", "apos"].contains(&&*name), "{}", element);
                    }
                    Ok(_) => {}
                    Err(error) => prop_assert!(false, "{}: {}", error, element),
                }
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _outcome = run(&bytes);
    }
}
