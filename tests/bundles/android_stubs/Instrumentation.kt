package androidx.test.platform.app

import android.content.Context
import android.content.res.AssetManager
import java.io.File

/** Reads assets from the module's folder instead of an APK. */
class Instrumentation {
    private val module = File(System.getProperty("module"))
    val context = Context(AssetManager(listOf(File(module, "src/androidTest/assets"))))
    val targetContext = Context(AssetManager(listOf(File(module, "src/main/assets"))))
}

object InstrumentationRegistry {
    @JvmStatic
    fun getInstrumentation() = Instrumentation()
}
