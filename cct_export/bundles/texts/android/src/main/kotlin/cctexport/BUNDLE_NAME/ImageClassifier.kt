package cctexport.BUNDLE_NAME

import android.content.Context
import android.graphics.Bitmap
import android.util.Log
import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import kotlin.math.exp

/** A class with the probability that the model gives it. */
data class Score(val label: String, val probability: Double)

/**
 * The model of this bundle on LiteRT.
 *
 * Opening it takes time, and so may the GPU: do both away from the main thread. One image runs at a
 * time; further calls wait.
 */
class ImageClassifier private constructor(
    private val contract: Contract,
    private val engine: Engine,
    /** What runs the model, `Accelerator.GPU` or `Accelerator.CPU`. */
    val accelerator: Accelerator,
    /** Why the GPU does not run it; null where it does, or was not asked for. */
    val gpuRefusal: String?,
) : AutoCloseable {

    /** The classes, in the order of the logits. */
    val labels: List<String> get() = contract.labels

    /** Returns the [top] most probable classes of a picture of any size, the best first. */
    fun classify(bitmap: Bitmap, top: Int = 5): List<Score> {
        val pixels = pixelsOf(bitmap, contract.height, contract.width, contract.channels)
        val logits = logits(pixels)
        val highest = logits.max()
        val weights = logits.map { exp((it - highest).toDouble()) }
        val sum = weights.sum()
        return weights
            .mapIndexed { index, weight -> Score(labels[index], weight / sum) }
            .sortedByDescending { it.probability }
            .take(top)
    }

    /**
     * Returns the logits of pixels that have the model's size already.
     *
     * @param pixels height × width × channels bytes, row by row, 0–255 (as in a PPM file).
     */
    @Synchronized
    fun logits(pixels: ByteArray): FloatArray {
        require(pixels.size == contract.size) {
            "an image is ${contract.size} bytes, not ${pixels.size}: ${contract.height} × " +
                "${contract.width} pixels of ${contract.channels} channels"
        }
        return engine.logits(pixels)
    }

    /** Frees the model; it cannot be used any more. */
    @Synchronized
    override fun close() = engine.close()

    companion object {
        private const val TAG = "ImageClassifier"

        /** Folder of the bundle's assets; its name keeps several bundles in one app apart. */
        internal const val FOLDER = "BUNDLE_NAME"

        /**
         * Opens the model.
         *
         * @param gpu whether to try the GPU first. Where there is none, or it does not take the
         *   whole model, the CPU runs it; [accelerator] and [gpuRefusal] say so, and the log does.
         * @throws LiteRtException the CPU does not run it either.
         */
        @JvmStatic
        @JvmOverloads
        fun open(context: Context, gpu: Boolean = true): ImageClassifier {
            val text = context.assets.open("$FOLDER/model.json").bufferedReader().use { it.readText() }
            val contract = Contract(text)
            var refusal: String? = null
            if (gpu) {
                try {
                    return opened(context, contract, Accelerator.GPU, null)
                } catch (error: LiteRtException) {
                    refusal = error.message ?: error.toString()
                }
            }
            return opened(context, contract, Accelerator.CPU, refusal)
        }

        private fun opened(
            context: Context,
            contract: Contract,
            accelerator: Accelerator,
            refusal: String?,
        ): ImageClassifier {
            val engine = Engine(context, contract, accelerator)
            if (refusal == null) {
                Log.i(TAG, "${contract.model} runs on the $accelerator")
            } else {
                Log.w(TAG, "${contract.model} runs on the $accelerator, not on the GPU: $refusal")
            }
            return ImageClassifier(contract, engine, accelerator, refusal)
        }
    }
}

/** LiteRT's model with its buffers, all of which are freed together. */
private class Engine(context: Context, private val contract: Contract, accelerator: Accelerator) :
    AutoCloseable {
    private val model: CompiledModel
    private var inputs: List<TensorBuffer> = emptyList()
    private var outputs: List<TensorBuffer> = emptyList()

    init {
        // One accelerator only: with the CPU as a second one LiteRT falls back and does not tell.
        val options = CompiledModel.Options(accelerator)
        if (accelerator == Accelerator.GPU) {
            // In half precision, the default, a float32 model would miss its bounds.
            val precision = CompiledModel.GpuOptions.Precision.FP32
            options.gpuOptions = CompiledModel.GpuOptions(precision = precision)
        }
        val file = "${ImageClassifier.FOLDER}/${contract.model}"
        model = CompiledModel.create(context.assets, file, options)
        try {
            inputs = model.createInputBuffers()
            outputs = model.createOutputBuffers()
            logits(ByteArray(contract.size)) // what fails only when it runs fails here
        } catch (error: LiteRtException) {
            close()
            throw error
        }
    }

    fun logits(pixels: ByteArray): FloatArray {
        val input = inputs.single()
        when (contract.inputType) {
            "float32" -> input.writeFloat(FloatArray(pixels.size) { unsigned(pixels[it]).toFloat() })
            "uint8" -> input.writeInt8(pixels)
            "int8" -> input.writeInt8(ByteArray(pixels.size) { (unsigned(pixels[it]) - 128).toByte() })
            else -> error("the model takes ${contract.inputType}, which this class does not know")
        }
        model.run(inputs, outputs)
        val output = outputs.single() // reading it waits for the GPU
        return when (contract.outputType) {
            "float32" -> output.readFloat()
            "uint8" -> dequantized(output.readInt8()) { unsigned(it) }
            "int8" -> dequantized(output.readInt8()) { it.toInt() }
            else -> error("the model gives ${contract.outputType}, which this class does not know")
        }
    }

    private fun dequantized(answer: ByteArray, number: (Byte) -> Int) =
        FloatArray(answer.size) {
            ((number(answer[it]) - contract.zeroPoint) * contract.scale).toFloat()
        }

    override fun close() {
        (inputs + outputs).forEach { it.close() }
        model.close()
    }

    private fun unsigned(byte: Byte) = byte.toInt() and 0xFF
}
