"""The files of the data sets that avsnn generates: demo, demo-motion and demo-events."""

from pathlib import Path

from avsnn.datasets_manifest import Clip, Manifest, MediaFile


def generate_file(manifest: Manifest, clip: Clip, file: MediaFile, target: Path) -> None:
    """Write one of the two files of a clip; the same clip gives the same bytes.

    Args:
        manifest: the data set.
        clip: the clip.
        file: the file of the clip that is written.
        target: where the file goes.
    """
    # Only a generated data set needs the encoders, so no other data set waits for the imports.
    is_visual, name = file == clip.visual, manifest.classes[clip.label]
    if manifest.name == "demo-motion":
        from avsnn.pipeline.media import demo_motion_synthesis

        if is_visual:
            demo_motion_synthesis.write_video(target, key=clip.key, motion=name)
        else:
            target.write_bytes(demo_motion_synthesis.audio_bytes(key=clip.key))
        return
    shape, contour = name.split("-")
    if manifest.has_events:
        from avsnn.pipeline.media import demo_events_synthesis

        if is_visual:
            demo_events_synthesis.write_recording(target, key=clip.key, shape=shape)
        else:
            demo_events_synthesis.write_sound(
                target,
                key=clip.key,
                contour=contour,
                part="train" if file.member.startswith("train/") else "test",
            )
        return
    from avsnn.pipeline.media import demo_synthesis

    if is_visual:
        demo_synthesis.write_video(target, key=clip.key, shape=shape)
    else:
        target.write_bytes(demo_synthesis.audio_bytes(key=clip.key, contour=contour))
