// A program of the test: what the bundle's class makes of pictures. BUNDLE_NAME is replaced.
package cctexport.BUNDLE_NAME

import android.graphics.Bitmap
import androidx.test.platform.app.InstrumentationRegistry
import com.google.ai.edge.litert.JniHandle
import java.io.File
import javax.imageio.ImageIO

fun main(arguments: Array<String>) {
    val app = InstrumentationRegistry.getInstrumentation().targetContext
    val classifier = ImageClassifier.open(app)
    println("accelerator ${classifier.accelerator}, refusal ${classifier.gpuRefusal}")
    for ((index, name) in arguments.withIndex()) {
        val picture = ImageIO.read(File(name))
        val (width, height) = picture.width to picture.height
        val colours = picture.getRGB(0, 0, width, height, null, 0, width)
        val kind = if (index % 2 == 0) Bitmap.Config.ARGB_8888 else Bitmap.Config.HARDWARE
        val bitmap = Bitmap(width, height, colours, kind)
        println("pixels " + pixelsOf(bitmap, 32, 32, 3).joinToString(",") { "${it.toInt() and 0xFF}" })
        println("grey " + pixelsOf(bitmap, 7, 5, 1).joinToString(",") { "${it.toInt() and 0xFF}" })
        for (score in classifier.classify(bitmap)) println("score ${score.probability} ${score.label}")
    }
    try {
        classifier.logits(ByteArray(3))
    } catch (error: IllegalArgumentException) {
        println("refused: ${error.message}")
    }
    classifier.close()
    classifier.close()
    println("open handles ${JniHandle.open}")
}
