package cctexport.BUNDLE_NAME

import org.json.JSONObject

/** What the model takes and gives, as `model.json` says it. */
internal class Contract(text: String) {
    private val root = JSONObject(text)
    private val input = root.getJSONObject("input")
    private val output = root.getJSONObject("output")
    private val bounds = root.getJSONObject("golden")

    /** Name of the model's file, beside `model.json`. */
    val model: String = root.getString("model")

    /** Checksum of that file. */
    val sha256: String = root.getString("sha256")

    val height: Int
    val width: Int
    val channels: Int

    init {
        val shape = input.getJSONArray("shape") // batch, height, width, channels
        height = shape.getInt(1)
        width = shape.getInt(2)
        channels = shape.getInt(3)
    }

    /** Numbers of one image. */
    val size: Int = height * width * channels

    /** Type of the input: `float32` and `uint8` are the pixels, `int8` is the pixels less 128. */
    val inputType: String = input.getString("dtype")

    /** Type of the output: `float32`, or integers that stand for `scale · (q − zeroPoint)`. */
    val outputType: String = output.getString("dtype")
    val scale: Double = output.optDouble("scale", 1.0)
    val zeroPoint: Int = output.optInt("zero_point", 0)

    /** The classes, in the order of the logits. */
    val labels: List<String> =
        root.getJSONArray("labels").let { names -> List(names.length()) { names.getString(it) } }

    /** How close the logits have to be to those of Keras. */
    val sqnrDb: Double = bounds.getDouble("sqnr_db")
    val agreement: Double = bounds.getDouble("agreement")
    val flips: Int = bounds.getInt("flips")

    /** Largest difference of a logit, relative to the largest logit; null for no such bound. */
    val maxAbs: Double? = if (bounds.isNull("max_abs")) null else bounds.getDouble("max_abs")
}
