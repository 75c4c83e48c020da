//! Who decides where the picture does not come, or seldom.

use super::*;

const SECOND: u64 = 90_000;
const TEXT: Pid = Pid::new(0x0102);

/// Sound of so many seconds from this one on, a PES packet each tenth of a second.
fn sound(seconds: std::ops::Range<u64>) -> Vec<u8> {
    let tenths = seconds.start * 10..seconds.end * 10;
    let pes = |tenth: u64| Build::new(AUDIO, tenth as usize).pes_at(0xC0, tenth * SECOND / 10, &[0xAA; 100]);
    tenths.flat_map(pes).collect()
}

fn picture(counter: usize) -> Vec<u8> {
    Build::new(VIDEO, counter).pes(0xE0, &[AUD, SPS, PPS, IDR].concat())
}

#[test]
fn a_picture_that_never_comes_is_stood_in_for_by_the_sound() {
    for stream_type in [H264, 0x33] {
        let found = starts(&tables(&[(stream_type, VIDEO), (0x06, TEXT), (0x0F, AUDIO)]), &sound(0..10));
        assert!((65..=70).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|start| start.kind == KEY && start.packet > 29));
    }
    // The clock of the stream begins anew.
    let wrap = (1 << 33) - 5 * SECOND;
    let pes = |tenth: u64| {
        let time = (wrap + tenth * SECOND / 10) % (1 << 33);
        Build::new(AUDIO, tenth as usize).pes_at(0xC0, time, &[0xAA; 100])
    };
    let found = starts(&tables(&[(H264, VIDEO), (0x0F, AUDIO)]), &(0..100).flat_map(pes).collect::<Vec<_>>());
    assert!((65..=70).contains(&found.len()), "{}", found.len());
}

#[test]
fn a_still_picture_decides_when_it_comes_and_the_sound_between() {
    let stream = [picture(0), sound(0..30), picture(1), sound(30..40)].concat();
    let found = starts(&tables(&[(H264, VIDEO), (0x0F, AUDIO)]), &stream);
    let packets: Vec<_> = found.iter().map(|start| start.packet).collect();
    assert_eq!(packets[0], 0);
    assert!((31..=36).contains(&packets[1]), "{packets:?}");
    let again = packets.iter().position(|packet| *packet == 301).expect("the second picture");
    assert!((331..=336).contains(&packets[again + 1]), "the sound is silent for a while: {packets:?}");
    assert!(found.iter().all(|start| start.kind == KEY));
}

#[test]
fn the_best_of_those_that_send_stands_in() {
    let streams = [(H264, VIDEO), (0x06, TEXT), (0x0F, AUDIO), (MPEG2, Pid::new(0x0200))];
    let text = |second: u64| Build::new(TEXT, second as usize).pes_at(0xBD, second * SECOND, &[0xAA; 40]);
    let stream: Vec<_> =
        (0..10).flat_map(|second| [text(second), sound(second..second + 1)].concat()).collect();
    let sound_decides = starts(&tables(&streams), &stream);
    assert!((65..=70).contains(&sound_decides.len()), "{}", sound_decides.len());
    // Text alone: one in a second.
    let text_decides = starts(&tables(&streams), &(0..10).flat_map(text).collect::<Vec<_>>());
    assert_eq!(text_decides.len(), 7);
}

#[test]
fn pictures_a_second_apart_stay_in_charge() {
    let stream: Vec<_> = (0..10_usize)
        .flat_map(|second| {
            let at = second as u64;
            let slice = if second % 5 == 0 { IDR } else { P_SLICE };
            [Build::new(VIDEO, second).pes(0xE0, slice), sound(2 * at..2 * at + 2)].concat()
        })
        .collect();
    let found = starts(&tables(&[(H264, VIDEO), (0x0F, AUDIO)]), &stream);
    assert_eq!(found.len(), 10, "every two seconds: {found:?}");
    assert_eq!(found.iter().filter(|start| start.kind == KEY).count(), 2);
}
