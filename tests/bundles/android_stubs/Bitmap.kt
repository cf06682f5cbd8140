package android.graphics

/** ARGB pixels; those of a HARDWARE bitmap cannot be read. */
class Bitmap(val width: Int, val height: Int, private val colours: IntArray, val config: Config?) {
    enum class Config { ARGB_8888, HARDWARE }

    fun getPixels(to: IntArray, offset: Int, stride: Int, x: Int, y: Int, width: Int, height: Int) {
        check(config != Config.HARDWARE) { "pixels of a hardware bitmap cannot be read" }
        for (row in 0 until height) {
            colours.copyInto(to, offset + row * stride, (y + row) * this.width + x,
                (y + row) * this.width + x + width)
        }
    }

    fun copy(config: Config, mutable: Boolean): Bitmap {
        check(!mutable)
        return Bitmap(width, height, colours, config)
    }

    fun recycle() = Unit
}
