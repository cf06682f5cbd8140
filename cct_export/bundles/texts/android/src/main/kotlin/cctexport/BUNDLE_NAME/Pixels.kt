package cctexport.BUNDLE_NAME

import android.graphics.Bitmap
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.min

/** How much the pixels from [first] on weigh in one pixel of a resized line. */
private class Window(val first: Int, val weights: DoubleArray)

/** Returns a window for each of [to] pixels of a line that had [from]. */
private fun windows(from: Int, to: Int): List<Window> {
    val scale = from.toDouble() / to
    val reach = max(scale, 1.0) // wide when shrinking: every pixel counts
    return List(to) { index ->
        val centre = (index + 0.5) * scale
        val first = max(centre - reach + 0.5, 0.0).toInt()
        val end = min((centre + reach + 0.5).toInt(), from)
        val heights = DoubleArray(end - first) {
            max(1 - abs(first + it + 0.5 - centre) / reach, 0.0)
        }
        val sum = heights.sum()
        Window(first, DoubleArray(heights.size) { heights[it] / sum })
    }
}

/** Returns a line of pixels with [channels] values each in another length. */
private fun resized(line: IntArray, windows: List<Window>, channels: Int): IntArray {
    val made = IntArray(windows.size * channels)
    for ((index, window) in windows.withIndex()) {
        for (channel in 0 until channels) {
            var sum = 0.5
            for ((offset, weight) in window.weights.withIndex()) {
                sum += weight * line[(window.first + offset) * channels + channel]
            }
            made[index * channels + channel] = sum.toInt()
        }
    }
    return made
}

/** Returns the red, green and blue of ARGB pixels, or their grey as Pillow computes it. */
private fun channelsOf(colours: IntArray, channels: Int): IntArray {
    val made = IntArray(colours.size * channels)
    for ((index, colour) in colours.withIndex()) {
        val red = colour shr 16 and 0xFF
        val green = colour shr 8 and 0xFF
        val blue = colour and 0xFF
        if (channels == 1) {
            made[index] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) shr 16
        } else {
            made[index * 3] = red
            made[index * 3 + 1] = green
            made[index * 3 + 2] = blue
        }
    }
    return made
}

/**
 * Returns the pixels of a bitmap as the model was trained on them: resized bilinearly with
 * antialiasing, whatever its aspect ratio, row by row, channels together, 0–255 as bytes.
 *
 * It gives what Pillow's `resize(..., BILINEAR)` gives, to one step of a channel.
 * `Bitmap.createScaledBitmap` would not: it reads four pixels however much it shrinks.
 */
internal fun pixelsOf(bitmap: Bitmap, height: Int, width: Int, channels: Int): ByteArray {
    // The pixels of a bitmap on the GPU cannot be read.
    val onGpu = bitmap.config == Bitmap.Config.HARDWARE
    val readable = if (onGpu) bitmap.copy(Bitmap.Config.ARGB_8888, false) else bitmap
    val across = windows(readable.width, width)
    val colours = IntArray(readable.width)
    // One row at a time: a photograph of 50 megapixels would not fit into the heap as a whole.
    val rows = List(readable.height) { y ->
        readable.getPixels(colours, 0, readable.width, 0, y, readable.width, 1)
        resized(channelsOf(colours, channels), across, channels)
    }
    if (onGpu) readable.recycle()

    val pixels = ByteArray(height * width * channels)
    for ((y, window) in windows(rows.size, height).withIndex()) {
        for (at in 0 until width * channels) {
            var sum = 0.5
            for ((offset, weight) in window.weights.withIndex()) {
                sum += weight * rows[window.first + offset][at]
            }
            pixels[y * width * channels + at] = sum.toInt().toByte()
        }
    }
    return pixels
}
