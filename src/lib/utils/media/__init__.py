"""Image files, videos and windows: what goes in and out of the programs that look."""

from .display import has_display, show_images
from .image_files import drawing_name, image_files, is_image, with_ending, write_image
from .video import Video, VideoWriter, camera_number, has_image_content, is_animation, open_video

__all__ = [
    'Video',
    'VideoWriter',
    'camera_number',
    'drawing_name',
    'has_display',
    'has_image_content',
    'image_files',
    'is_animation',
    'is_image',
    'open_video',
    'show_images',
    'with_ending',
    'write_image',
]
