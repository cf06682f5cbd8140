package cctexport.BUNDLE_NAME

import android.content.Context
import android.util.Log
import androidx.test.ext.junit.runners.AndroidJUnit4
import androidx.test.platform.app.InstrumentationRegistry
import com.google.ai.edge.litert.Accelerator
import java.security.MessageDigest
import java.util.Base64
import org.json.JSONObject
import org.junit.Assert.assertEquals
import org.junit.Assume.assumeTrue
import org.junit.Test
import org.junit.runner.RunWith

/** Proves that this device computes what Keras computed, to the bounds of the model's scheme. */
@RunWith(AndroidJUnit4::class)
class GoldenTest {
    private val instrumentation = InstrumentationRegistry.getInstrumentation()
    private val app: Context = instrumentation.targetContext
    private val contract = Contract(String(asset(app, "model.json")))
    private val golden = JSONObject(String(asset(instrumentation.context, "golden.json")))

    @Test
    fun theModelIsTheOneThatWasBundled() {
        val digest = MessageDigest.getInstance("SHA-256").digest(asset(app, contract.model))
        assertEquals(contract.sha256, digest.joinToString("") { "%02x".format(it) })
    }

    @Test
    fun theCpuGivesTheLogitsOfKeras() = ImageClassifier.open(app, gpu = false).use(::compare)

    @Test
    fun theGpuGivesTheLogitsOfKeras() = ImageClassifier.open(app).use { classifier ->
        val message = "no GPU runs the model: ${classifier.gpuRefusal}"
        assumeTrue(message, classifier.accelerator == Accelerator.GPU)
        compare(classifier)
    }

    private fun compare(classifier: ImageClassifier) {
        val images = golden.getJSONArray("images")
        val rows = golden.getJSONArray("logits")
        val wanted = List(rows.length()) { image ->
            val row = rows.getJSONArray(image)
            FloatArray(row.length()) { row.getDouble(it).toFloat() }
        }
        val given = List(images.length()) {
            classifier.logits(Base64.getDecoder().decode(images.getString(it)))
        }
        val judgement = Judgement(wanted, given, contract)
        Log.i("GoldenTest", "${classifier.accelerator}: $judgement")
        assertEquals("$judgement", emptyList<String>(), judgement.failures())
    }

    private fun asset(context: Context, name: String): ByteArray =
        context.assets.open("${ImageClassifier.FOLDER}/$name").use { it.readBytes() }
}
