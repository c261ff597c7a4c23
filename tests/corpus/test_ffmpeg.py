"""ffmpeg (gcc, hand-written assembly): makes a short clip with sound and encodes it, with many threads."""

from __future__ import annotations

from pathlib import Path

from rig import corpus, tracing

_ARGUMENTS = """
-hide_banner -nostats -nostdin -loglevel error
-f lavfi -i testsrc=duration=0.3:size=96x64:rate=10
-f lavfi -i sine=duration=0.3:sample_rate=16000
-filter_threads 1 -vf scale=64:48,hflip -threads 1
-c:v libx264 -preset ultrafast -x264-params threads=1 -c:a aac
-map_metadata -1 -fflags +bitexact -flags +bitexact out.mkv
-map 0:v -map 1:a -threads 1 -f framemd5 -
""".split()


def test_encodes_a_clip_the_same_three_times_traced(tmp_path: Path) -> None:
    job = tracing.Job(corpus.program("ffmpeg"), _ARGUMENTS, tmp_path / "work")
    plain = tracing.runs_the_same_three_times_traced(
        job, tmp_path / "ffmpeg.calltrace", least_share_instrumented=0.99
    )
    assert plain.exit_code == 0
    assert plain.stdout.count(b"\n0,") == 3  # frames of the video stream
    assert plain.files["out.mkv"].startswith(b"\x1aE\xdf\xa3")
